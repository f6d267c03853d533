# SPDX-License-Identifier: Apache-2.0
"""What a wheel brings that a plugin should not bring."""

from __future__ import annotations

from collections.abc import Iterator

from .finding import Finding
from .subject import Examined


def findings(examined: Examined) -> Iterator[Finding]:
    """Yield the files outside of the plugins' packages, and a tag that names a machine."""
    if not examined.is_wheel:
        return
    packages = {subject.package for subject in examined.subjects}
    for path in sorted(examined.root.rglob("*")):
        name = path.relative_to(examined.root)
        top = name.parts[0]
        if path.is_file() and top not in packages and not top.endswith(".dist-info"):
            said = "is run by every Python that starts there" if path.suffix == ".pth" else "is outside of it"
            sentence = f"the wheel brings {name.as_posix()}, which {said}"
            fix = "Let the wheel have the plugin's package alone."
            yield Finding("wheel-file", name.as_posix(), sentence, fix)
    for file in examined.root.glob("*.dist-info/WHEEL"):
        tags = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("Tag:")]
        if tags != ["Tag: py3-none-any"]:
            where = file.relative_to(examined.root).as_posix()
            sentence = f"the wheel is for {', '.join(tag.removeprefix('Tag: ') for tag in tags)} only"
            yield Finding("wheel-tag", where, sentence, "Build it as pure Python: py3-none-any.")
