# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from emptcp.pybpf import BpfError, features


def test_every_feature_has_a_probe_and_a_description() -> None:
    assert set(features.FEATURES) == set(features._PROBES)
    assert all(feature.what for feature in features.FEATURES.values())


def test_an_unknown_feature_names_the_known_ones() -> None:
    with pytest.raises(BpfError, match="there is no feature 'tcxx'") as caught:
        features.has("tcxx")
    assert "tcx" in caught.value.fix


def test_the_environment_switches_features_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "tcx, batch,")
    assert features.disabled() == {"tcx", "batch"}
    assert not features.has("batch")
    assert features.reason("tcx") == "switched off by EMPTCP_DISABLE"
