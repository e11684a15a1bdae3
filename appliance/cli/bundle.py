"""``appliance bundle``: the one signed file that installs without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.output import json_option, note, prepare, print_json, table

if TYPE_CHECKING:
    from appliance.operations.bundle.verify import Verified
    from appliance.settings import Settings

_EXISTING = click.Path(path_type=Path, exists=True, dir_okay=False)
_KEY = "release.key"


@click.group()
def bundle() -> None:
    """Build and check the signed file that installs without a network."""


@bundle.command()
@click.option("--model", "models", multiple=True, help="Take this model's weights along, too.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write it.")
@click.option("--key", type=_EXISTING, help="Private key to sign with; by default this desk's own.")
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that keeps the wheels: filled if empty, else used as it is, without a network.",
)
@click.option("--version-suffix", default="", help="Goes behind the version, for rehearsals.")
@click.option("--allow-dirty", is_flag=True, help="Build from changed files; the bundle tells.")
@json_option
def build(
    models: tuple[str, ...],
    out: Path | None,
    key: Path | None,
    wheels: Path | None,
    version_suffix: str,
    allow_dirty: bool,
    as_json: bool,
) -> None:
    """Build a bundle of this commit. The only command that talks to package indexes.

    The weights of --model must have been added with 'appliance models add'.
    """
    settings = prepare("bundle")
    from appliance.operations.bundle.build import Order, build

    order = Order(
        key or _own_key(settings), out, models, wheels, version_suffix, allow_dirty=allow_dirty
    )
    if wheels is None or not wheels.is_dir() or not any(wheels.iterdir()):
        note("This command fetches packages from the indexes that pip is configured for.")
    built = build(settings, order, say=note)
    if as_json:
        print_json({"file": str(built.path), "key": str(built.key), **_told(built.verified)})
        return
    click.echo(f"{built.path}  {built.size / 2**20:.0f} MiB")
    click.echo(f"{built.key}  {built.verified.fingerprint}")


@bundle.command()
@click.argument("file", type=_EXISTING)
@click.option("--key", type=_EXISTING, help="Public key to believe.")
@json_option
def verify(file: Path, key: Path | None, as_json: bool) -> None:
    """Check a bundle's signature and every file in it; nothing is unpacked.

    Believed is the key named with --key, else the one pinned when this desk was installed, else
    FILE.pub, whose fingerprint then has to be compared.
    """
    prepare("bundle")
    verified, origin = _verified(file, key)
    if as_json:
        print_json({"file": str(file), "verified": True, "key": origin, **_told(verified)})
        return
    manifest = verified.manifest
    click.echo(
        f"{file.name} is whole: {manifest.name} {manifest.version}, {len(verified.hashes)} files."
    )
    click.echo(f"Signed by {verified.fingerprint} ({origin}).")


@bundle.command()
@click.argument("file", type=_EXISTING)
@click.option("--key", type=_EXISTING, help="Public key to believe.")
@json_option
def show(file: Path, key: Path | None, as_json: bool) -> None:
    """Show what is in a bundle: what it needs, its parts with sizes and licences."""
    prepare("bundle")
    import json

    from appliance.operations.bundle.layout import SBOM

    also = {SBOM: b""}
    verified, origin = _verified(file, key, also)
    parts = [_part(each, verified.sizes) for each in json.loads(also[SBOM])["components"]]
    folders: dict[str, int] = {}
    for path, size in verified.sizes.items():
        folder = path.partition("/")[0] if "/" in path else "."
        folders[folder] = folders.get(folder, 0) + size
    if as_json:
        told = {"file": str(file), "key": origin, **_told(verified)}
        print_json(told | {"folders": folders, "components": parts})
        return
    for name, value in _told(verified).items():
        shown = ", ".join(value) if isinstance(value, list) else value
        click.echo(f"{name:12} {shown if shown not in ('', None) else '-'}")
    click.echo()
    table(("folder", "MiB"), [(name, _mib(size)) for name, size in sorted(folders.items())])
    click.echo()
    rows = [(p["name"], p["version"], p["type"], _mib(p["size"]), p["licence"]) for p in parts]
    table(("part", "version", "kind", "MiB", "licence"), rows)


@bundle.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@json_option
def keygen(file: Path | None, as_json: bool) -> None:
    """Make the key that signs bundles; by default in this desk's secrets, where build looks."""
    settings = prepare("bundle")
    from appliance.operations.bundle import signing

    path = file or settings.data_dir / "secrets" / _KEY
    signing.make_key(path)
    public = signing.public_file(path)
    fingerprint = signing.fingerprint(public.read_bytes())
    if as_json:
        print_json({"key": str(path), "public": str(public), "fingerprint": fingerprint})
        return
    click.echo(f"private  {path}  (keep it to yourself; who has it can sign releases)")
    click.echo(f"public   {public}  {fingerprint}")


def _own_key(settings: Settings) -> Path:
    """The key in the data folder, made at the first build."""
    from appliance.operations.bundle import signing

    path = settings.data_dir / "secrets" / _KEY
    if not path.exists():
        note(f"Making a key to sign with: {path}")
        signing.make_key(path)
    return path


def _verified(
    file: Path, key: Path | None, also: dict[str, bytes] | None = None
) -> tuple[Verified, str]:
    from appliance.errors import BundleError
    from appliance.operations.bundle import signing
    from appliance.operations.bundle.verify import verify
    from appliance.settings import ROOT

    pinned = ROOT / "etc/appliance/release.pub" if ROOT else None
    if key is None and pinned is not None and pinned.exists():
        key, origin = pinned, "the key of this installation"
    elif key is None:
        key, origin = signing.public_file(file), "the key beside the bundle, not known before"
    else:
        origin = str(key)
    try:
        public = key.read_bytes()
    except OSError as error:
        raise BundleError(
            f"The key {key} cannot be read: {error.strerror}.",
            hint="Name the signer's public key with --key FILE.",
        ) from error
    return verify(file, public, also=also), origin


def _told(verified: Verified) -> dict[str, Any]:
    import msgspec

    manifest: dict[str, Any] = msgspec.to_builtins(verified.manifest)
    sizes = verified.sizes
    return manifest | {
        "files": len(sizes),
        "bytes": sum(sizes.values()),
        "fingerprint": verified.fingerprint,
    }


def _part(component: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """A component of the SBOM for people; its size only where it is a file of its own."""
    (licence,) = component["licenses"]
    return {
        "name": component["name"],
        "version": component.get("version", ""),
        "type": component["type"],
        "licence": licence.get("expression") or licence["license"]["name"],
        "size": sizes.get(component["properties"][0]["value"]),
    }


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.1f}"
