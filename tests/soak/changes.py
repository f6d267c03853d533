# SPDX-License-Identifier: Apache-2.0
"""The process that changes policies at random, for hours if need be, by the library and by the command.

``python tests/soak/changes.py SEED SECONDS RESTS RESIDENT NETNS NETNS TOKEN..`` prints a JSON object a line:
at each rest what it, the process RESIDENT and the kernel hold, at the end what was done and which stages were
in force.

At a rest the same two tables are in force and nothing else, so what is held there is the same each time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from policies import Writer, stages

from emptcp.chain import apply, edits, entries, pins, running, switches, tables
from emptcp.errors import EmptcpError
from emptcp.policy import file, model
from emptcp.pybpf import Map

BREATH = 0.3
"""Seconds for packets to pass what was changed."""

SETTLING = 1.5
"""Seconds in which the resident process has seen what runs now."""

IDS = ("map_id:", "prog_id:", "link_id:", "btf_id:")

REFERENCE = """
table = "{name}"

[[policy]]
name = "p0"
hook = ["ingress", "egress"]
dev = ["path1"]
do = ["record('packets')"]
"""


@dataclass
class Work:
    """What was done: changes by kind, refusals by their sentence, packets that stages were given."""

    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)


class Changes:
    """Changes the tables of two hosts, one each, by name; ``hosts`` is name -> namespace."""

    def __init__(self, writer: Writer, hosts: dict[str, str]) -> None:
        self.work = Work()
        self._writer = writer
        self._random = writer.random
        self._hosts = hosts
        self._ways: list[Callable[[str], None]] = []

    def step(self) -> None:
        """Change something."""
        name = self._random.choice([*self._hosts])
        begin = self._missing() or name not in tables.names()
        way = self.file if begin else self._way()
        try:
            way(name)
            self.work.done[way.__name__] += 1
        except EmptcpError as error:
            self.work.refused[f"{way.__name__}: {error.sentence}"] += 1
        time.sleep(BREATH)
        self._look()

    def _way(self) -> Callable[[str], None]:
        """Return a way to change something: each has its turn, in another order each time."""
        if not self._ways:
            again = [self.file, self.tune, self.swap, self.insert, self.put]
            self._ways = [*again, *again, self.command, self.switch, self.remove]
            self._random.shuffle(self._ways)
        return self._ways.pop()

    def file(self, name: str) -> None:
        """Apply another file."""
        apply.apply(file.loads(self._text(name)), self._hosts[name])

    def command(self, name: str) -> None:
        """Apply another file, or list, by the command."""
        path = pins.run_folder() / f"{name}.toml"
        path.write_text(self._text(name))
        words = ["apply", str(path), "--netns", self._hosts[name]], ["list", "--json"], ["doctor"]
        emptcp(*self._random.choice(words))

    def tune(self, name: str) -> None:
        """Give a stage another value."""
        policy, stage, spec = self._stage(name, "rate", "on", "joins", "every")
        values = {"rate": f"{self._random.randint(20, 90)}mbit", "every": str(self._random.randint(2, 90))}
        parameter = next(one.name for one in spec.keywords if one.name in ("rate", "on", "joins", "every"))
        value = values.get(parameter, self._random.choice(("true", "false")))
        apply.edit(name, edits.tune(policy, [stage, f"{parameter}={value}"]))

    def swap(self, name: str) -> None:
        """Put an actor in the place of another."""
        policy, stage, _ = self._stage(name)
        apply.edit(name, edits.replace_stage(policy, stage, self._writer.actor(self._missing())))

    def insert(self, name: str) -> None:
        """Put another actor before the ones that are there, or take one out."""
        policy, stage, _ = self._stage(name)
        if stage.endswith("1"):
            apply.edit(name, edits.insert(policy, self._writer.actor(), at=1))
        else:
            apply.edit(name, edits.take_out(policy, stage))

    def put(self, name: str) -> None:
        """Change the table's set, which is there only while a policy asks it."""
        entry = tables.read(name)
        assert entry is not None
        with entries.open_set(f"{name}/chosen") as chosen:
            key = file.loads(entry.text).sets[0].key
            chosen.add([self._writer.entry(key) for _ in range(4)], timeout="" if key == "saddr" else "9s")
            chosen.remove([self._writer.entry(key)])

    def switch(self, name: str) -> None:
        """Switch a policy, or a table, or everything off and on again."""
        what = self._random.choice(((), (name,), (name, "p0")))
        switches.off(*what)
        switches.on(*what)

    def remove(self, name: str) -> None:
        """Take the table away."""
        apply.remove(name)

    def rest(self, resident: int) -> dict[str, object]:
        """Put the reference in force, and tell what is held."""
        for name in tables.names():
            apply.remove(name)
        for name, netns in self._hosts.items():
            apply.apply(file.loads(REFERENCE.format(name=name)), netns)
        time.sleep(SETTLING)
        processes = {"changes": os.getpid(), "resident": resident}
        return {"kernel": in_force()} | {name: footprint(pid) for name, pid in processes.items()}

    def _text(self, name: str) -> str:
        return self._writer.table(name, self._missing())

    def _missing(self) -> set[str]:
        """Return the stages that have not been in force yet."""
        return stages() - self.work.stages.keys()

    def _stage(self, name: str, *parameters: str) -> tuple[str, str, model.StageSpec]:
        """Return a policy, the number of one of its actors, and the actor; with one of some parameters."""
        entry = tables.read(name)
        assert entry is not None
        found = [
            (policy.name, str(number), spec)
            for policy in file.loads(entry.text).policies
            for number, spec in enumerate(policy.do, 1 + len(list(model.leaves(policy.when))))
            if isinstance(spec, model.StageSpec)
            and (not parameters or {one.name for one in spec.keywords} & {*parameters})
        ]
        if not found:
            raise EmptcpError("no stage has such a parameter")
        return self._random.choice(found)

    def _look(self) -> None:
        """Note which stages are in force and were given packets."""
        with running.everything() as found:
            for one in found.values():
                counts = one.counts()
                for key, stage in one.description.stages().items():
                    if counts[key].packets and stage.name in stages():
                        self.work.stages[stage.name] += counts[key].packets


def emptcp(*words: str) -> None:
    """Run the command."""
    done = subprocess.run(
        [sys.executable, "-m", "emptcp.cli.main", *words], capture_output=True, text=True, timeout=120
    )
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise RuntimeError(f"emptcp {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    if done.returncode:
        raise EmptcpError(done.stderr.strip() or done.stdout.strip())


def footprint(pid: int) -> dict[str, int]:
    """Return how many BPF objects a process holds, by kind, and its resident memory in KiB."""
    found: Counter[str] = Counter()
    folder = f"/proc/{pid}/fdinfo"
    for number in os.listdir(folder):
        with suppress(FileNotFoundError), open(f"{folder}/{number}") as about:
            found.update(line.split("_")[0] for line in about if line.startswith(IDS))
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {"rss": int(next(line.split()[1] for line in status if line.startswith("VmRSS"))), **found}


def in_force() -> dict[str, int]:
    """Return how many pins, programs and maps there are, and the bytes that the kernel counts for maps."""
    tree = pins.find()
    assert tree is not None
    with running.everything(tree) as found:
        numbers = {number for one in found.values() for number in one.program.info.map_ids}
        memory = sum(map(memlock, numbers))
        pinned = sum(not path.is_dir() for path in tree.root.rglob("*"))
        return {"pins": pinned, "programs": len(found), "maps": len(numbers), "bytes": memory}


def memlock(number: int) -> int:
    """Return what the kernel counts for a map."""
    with Map.from_id(number) as one:
        about = Path(f"/proc/self/fdinfo/{one.fd}").read_text()
    return int(next(line.split()[1] for line in about.splitlines() if line.startswith("memlock")))


def main(
    seed: int, seconds: float, rests: int, resident: int, hosts: dict[str, str], tokens: list[int]
) -> None:
    """Change policies for so many seconds; what was in force is taken away."""
    changes = Changes(Writer(Random(seed), tokens), hosts)
    began = time.monotonic()
    for number in range(1, rests + 1):
        while time.monotonic() < began + seconds * number / rests:
            changes.step()
        print(json.dumps({"at": time.monotonic() - began, **changes.rest(resident)}), flush=True)
    for name in tables.names():
        apply.remove(name)
    work = changes.work
    print(json.dumps({"done": work.done, "refused": work.refused, "stages": work.stages}), flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    both = {"a": given[4], "b": given[5]}
    connections = [int(token) for token in given[6:]]
    main(int(given[0]), float(given[1]), int(given[2]), int(given[3]), both, connections)
