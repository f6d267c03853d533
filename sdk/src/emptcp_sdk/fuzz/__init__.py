# SPDX-License-Identifier: Apache-2.0
"""Try BPF code with packets that nobody thought of: made from a grammar, then broken.

``packets`` makes them, ``mutations`` breaks them, ``driver`` runs them, ``model`` says what the parser must
find, ``judge`` says whether what came out is what came in, or valid. ``search`` keeps what was new and breaks
it further; ``finding`` makes a failure small and writes it down. It needs the extra ``testing``.
"""
