"""Bundles of a made-up product, in the form of the real ones: small enough to be spoiled in every
way and installed in seconds.

What is tried with them is install.sh alone. Their ``appliance`` command keeps its state as files
and says "started" where the real one starts; everything else (signature, lock, wheel, environment)
is as in a real bundle.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.appliance_process import ROOT

NAME = "smartsupport-appliance"

_SETTINGS = """
from pathlib import Path
from types import SimpleNamespace

HOME = Path(__file__).resolve().parent.parent
ROOT = HOME.parents[3]


def load_settings():
    return SimpleNamespace(sockets="/run/of-nobody", data_dir=ROOT / "var/lib/appliance")
"""

_MAIN = '''
import json
import sys

import toy_words
from appliance.settings import HOME, ROOT

STATE = ROOT / "var/lib/appliance"
CURRENT = ROOT / "opt/appliance/current"


def kept(name):
    file = STATE / name
    return json.loads(file.read_text()) if file.exists() else []


def keep(name, rows):
    (STATE / name).write_text(json.dumps(rows))


def main():
    """Answers what install.sh asks for, by files below the state's folder."""
    words = [word for word in sys.argv[1:] if word != "--json"]
    with (STATE / "calls").open("a") as calls:
        calls.write(" ".join(words[:2]) + "\\n")
    match words:
        case ["db", "upgrade"]:
            keep("database", [1])
        case ["kb", "import", file]:
            keep("faqs", json.loads(open(file).read())["faqs"])
        case ["kb", "list"]:
            print(json.dumps({"faqs": kept("faqs")}))
        case ["keys", "list"]:
            print(json.dumps([{"role": role} for role in kept("keys")]))
        case ["keys", "create", "--role", role, *_]:
            keep("keys", [*kept("keys"), role])
            print("sk-" + role)
        case ["models", "add", file]:
            (STATE / "weights").mkdir(exist_ok=True)
            (STATE / "weights" / file.rpartition("/")[2]).write_bytes(open(file, "rb").read())
        case ["ask", question]:
            answer = {"response": toy_words.ANSWER, "metadata": {"citations": [{"id": "1"}]}}
            print(json.dumps(answer))
        case ["release", "activate" | "upgrade" as verb, version]:
            CURRENT.unlink(missing_ok=True)
            CURRENT.symlink_to("releases/" + version)
            units = ROOT / "etc/systemd/system"
            units.mkdir(parents=True, exist_ok=True)
            for unit in (HOME / "systemd").iterdir():
                (units / unit.name).write_bytes(unit.read_bytes())
            if verb == "upgrade":
                keep("running", [version])
        case ["release", "start"]:
            keep("running", [CURRENT.readlink().name])
        case ["release", "recover"]:
            pass
        case ["release", "stop"]:
            keep("running", [])
        case ["release", "status"]:
            version = CURRENT.readlink().name if CURRENT.is_symlink() else None
            serving = (kept("running") or [None])[0]
            print(json.dumps({"version": version, "units": version, "serving": serving}))
        case _:
            print("error: no such words", words, file=sys.stderr)
            return 2
    return 0
'''


def make_key(folder: Path, name: str = "key") -> Path:
    """A private ed25519 key, with its public half beside it as NAME.pub."""
    private = folder / f"{name}.pem"
    _openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    _openssl("pkey", "-in", private, "-pubout", "-out", folder / f"{name}.pub")
    return private


def make_folder(folder: Path, key: Path, *, version: str = "1.0.0") -> Path:
    """An unpacked bundle in ``folder``, whole and signed."""
    top = folder / f"{NAME}-{version}"
    tree = top / "tree"
    for part in ("appliance/cli", "kb", "migrations", "systemd", "docs"):
        (tree / part).mkdir(parents=True)
    (tree / "appliance/__init__.py").write_text(f'__version__ = "{version}"\n')
    (tree / "appliance/settings.py").write_text(_SETTINGS)
    (tree / "appliance/cli/__init__.py").write_text("")
    (tree / "appliance/cli/main.py").write_text(_MAIN)
    faqs = [{"id": "1", "question": "Why?", "answer": "Because.", "category": "General"}]
    (tree / "kb/faqs.json").write_text(json.dumps({"faqs": faqs}))
    (tree / "systemd/appliance-api.service").write_text(f"[Unit]\nDescription=Toy {version}\n")
    shutil.copy(ROOT / "install.sh", tree)
    shutil.copy(ROOT / "install.sh", top)
    (top / "weights").mkdir()
    (top / "weights/Toy.Q4_0.gguf").write_bytes(b"GGUF" + bytes(60))
    (top / "LICENSES.txt").write_text("None.\n")
    (top / "sbom.cdx.json").write_text("{}\n")
    wheel = _make_wheel(top / "wheels")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (top / "requirements.lock").write_text(f"toy-words==1.0 --hash=sha256:{digest}\n")
    told = {
        "name": NAME,
        "version": version,
        "commit": "0123abc",
        "python": f"3.{sys.version_info.minor}",
        "machine": "x86_64",
        "glibc": "2.17",
        "glibcxx": "3.4",
        "models": ["toy"],
        "schema": "none",
    }
    (top / "BUNDLE.json").write_text(json.dumps(told, indent=2) + "\n")
    sign(top, key)
    return top


def sign(top: Path, key: Path) -> None:
    """Write SHA256SUMS of what lies there, and its signature."""
    sums = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(top).as_posix()}\n"
        for path in sorted(top.rglob("*"))
        if path.is_file() and not path.name.startswith("SHA256SUMS")
    )
    (top / "SHA256SUMS").write_text(sums)
    _openssl(
        *("pkeyutl", "-sign", "-inkey", key, "-rawin"),
        *("-in", top / "SHA256SUMS", "-out", top / "SHA256SUMS.sig"),
    )


def pack(
    top: Path,
    bundle: Path,
    key: Path,
    change: Callable[[tarfile.TarInfo], tarfile.TarInfo | None] = lambda member: member,
) -> Path:
    """The tar of a folder with the public key beside it; ``change`` sees each member first."""
    with tarfile.open(bundle, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(top, top.name, filter=change)
    shutil.copy(key.with_suffix(".pub"), f"{bundle}.pub")
    return bundle


def _make_wheel(folder: Path) -> Path:
    folder.mkdir()
    wheel = folder / "toy_words-1.0-py3-none-any.whl"
    info = "toy_words-1.0.dist-info"
    files = {
        "toy_words.py": 'ANSWER = "Because."\n',
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: toy-words\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{name},sha256={_digest(text)},{len(text)}" for name, text in files.items()]
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")
    return wheel


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
