# SPDX-License-Identifier: Apache-2.0
"""The model of what a share holds."""

from __future__ import annotations

from pathlib import Path

from emptcp_selector_sample import share
from emptcp_selector_sample.share import place

ENDS = ("10.0.0.1", 40000, "10.0.0.2", 5001)


def test_the_readme_shows_the_function_as_it_is() -> None:
    shown = (Path(__file__).parents[2] / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert Path(share.__file__).read_text().endswith(shown)


def test_a_place_does_not_change_between_releases() -> None:
    assert place(*ENDS) == place("::ffff:10.0.0.1", 40000, "::ffff:10.0.0.2", 5001) == 0.5956545523367822
    assert place("fd00::1", 40000, "fd00::2", 5001, 7) == 0.6561316403094679


def test_both_directions_have_one_place() -> None:
    assert place(*ENDS) == place(*ENDS[2:], *ENDS[:2])


def test_a_share_is_met_and_another_seed_is_another_choice() -> None:
    ports, some = range(1024, 65535, 16), 0.25
    chosen = [{port for port in ports if place("10.0.0.1", port, *ENDS[2:], seed) < some} for seed in (0, 1)]
    assert all(abs(len(one) / len(ports) - some) < 0.02 for one in chosen)
    assert abs(len(chosen[0] & chosen[1]) / len(ports) - some**2) < 0.02
