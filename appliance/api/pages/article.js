/**
 * The dialog that shows a knowledge-base article. The native <dialog> traps focus, closes on Esc
 * and makes the page behind it inert; focus goes back to the button that opened it.
 */

import * as api from "./api.js";
import { byId, el } from "./dom.js";
import { explain } from "./problems.js";

const dialog = byId("article-dialog");
const title = byId("article-title");
const category = byId("article-category");
const body = byId("article-body");
const retry = byId("article-retry");

// Articles by id, filled from answers, so that opening a source needs no request in the usual case.
const known = new Map();
let shown = null;

wireDialog(dialog);
retry.addEventListener("click", () => fetchArticle(shown));

/** Remember passages that came with an answer: [{id, title, content, category}]. */
export function remember(passages = []) {
  for (const { id, title: question, content, category: topic } of passages) {
    if (content) known.set(String(id), { question, answer: content, category: topic });
  }
}

/** @param {{id, title}} citation @param {HTMLElement} opener gets the focus back */
export function openArticle(citation, opener) {
  shown = citation;
  const article = known.get(String(citation.id));
  if (article) show(article);
  else fetchArticle(citation);
  dialog.showModal();
  body.scrollTop = 0;
  dialog.addEventListener("close", () => opener.focus(), { once: true });
}

async function fetchArticle(citation) {
  show({ question: citation.title, answer: "Opening the article…" });
  try {
    const article = await api.article(citation.id);
    known.set(String(citation.id), article);
    if (shown === citation) show(article);
  } catch (problem) {
    if (shown !== citation) return;
    const gone = problem.status === 404;
    show({
      question: citation.title,
      answer: gone
        ? "This article is no longer in the knowledge base."
        : explain(problem).text.split(". ")[0] + ".",
    });
    retry.hidden = gone;
  }
}

function show(article) {
  title.textContent = article.question;
  category.hidden = !article.category;
  category.textContent = article.category ?? "";
  body.replaceChildren(el("div", { class: "text" }, article.answer.trim()));
  retry.hidden = true;
}

/** Close buttons and a click on the backdrop; Esc and the focus trap are the browser's. */
export function wireDialog(target) {
  for (const button of target.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => target.close());
  }
  target.addEventListener("click", (event) => {
    if (event.target === target) target.close();
  });
}
