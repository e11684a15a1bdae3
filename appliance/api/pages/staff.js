/**
 * Who is signed in, for every page of agents and administrators: call account() first, and
 * toSignIn() where it finds nobody. After that api.js sends along what the server asks for.
 */

import { getJson, identify, postJson } from "./api.js";

const PAGE = { "X-Requested-With": "appliance-staff" };

identify(PAGE);

/** @returns {Promise<object|null>} username, name, role, expires_at; null where nobody is. */
export async function account() {
  try {
    return known(await getJson("/account"));
  } catch (problem) {
    // 401: no session, or one that ended. 403: a visitor of the chat page.
    if (problem.status === 401 || problem.status === 403) return null;
    throw problem;
  }
}

/** @param {object} credentials {username, password} or {key} */
export const signIn = async (credentials) => known(await postJson("/login", credentials));

export const changePassword = async (present, fresh) =>
  known(await postJson("/account/password", { present, new: fresh }));

export async function signOut() {
  await postJson("/logout", {});
  identify(PAGE);
}

/** To the sign-in page, and back here afterwards. */
export function toSignIn() {
  const here = location.pathname + location.search;
  location.assign(`/login?next=${encodeURIComponent(here)}`);
}

function known(who) {
  identify({ ...PAGE, "X-CSRF-Token": who.csrf_token });
  return who;
}
