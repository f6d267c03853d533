# SPDX-License-Identifier: Apache-2.0
"""The fused engine: join a plan's fragments into one program.

See :mod:`emptcp.chain.joining` for how fragments are copied, and :mod:`emptcp.chain.dispatcher` for what
comes first.

::

    dispatcher
    policy: stage .. stage                   edges from the plan, counters after each stage
    policy: ..
    pass | drop | redirect                   the checksum first

Jumps have 16 bits. Long programs hop: every few thousand instructions a policy ends with a small
island that forwards jumps to the next one.
"""

from __future__ import annotations

from emptcp.chain import instructions as bpf
from emptcp.chain import layout, reasons
from emptcp.chain.asking import Asking
from emptcp.chain.counters import CHUNK_STAGES, COUNTER_BYTES
from emptcp.chain.dispatcher import Dispatcher
from emptcp.chain.instructions import R0, R1, R2, R4, R5, R10
from emptcp.chain.joining import ACCEPT, DROP, GOTO, PACKET, REDIRECT, RETURN, Binding, Joined, check_stack
from emptcp.chain.layout import Slot
from emptcp.chain.plan import END, Plan, PlannedPolicy, Stage, Step
from emptcp.errors import EmptcpError, quoted

INSTRUCTION_BUDGET = 500_000
"""Instructions of one program; the kernel's verifier stops at a million visited ones."""

ISLAND_EVERY = 12_000
"""Instructions after which jumps to the exits are forwarded by an island."""


def join(plan: Plan, binding: Binding) -> Joined:
    """Join ``plan`` for one back-end. Raises :class:`EmptcpError` when a budget is exceeded."""
    check_stack(plan, binding)
    try:
        joined = _Fused(plan, binding).run()
    except OverflowError as error:
        raise EmptcpError(
            f"the code around '{error}' is longer than a BPF jump reaches ({bpf.JUMP_REACH} instructions)",
            fix="Split the policy in two.",
        ) from None
    count = len(joined.instructions) // 8
    if count > INSTRUCTION_BUDGET:
        raise EmptcpError(
            f"the policies of one hook make {count} instructions, more than the {INSTRUCTION_BUDGET} allowed",
            fix="Use fewer policies on this device, or the engine 'tail'.",
        )
    return joined


class _Fused(Dispatcher, Asking):
    def __init__(self, plan: Plan, binding: Binding) -> None:
        super().__init__(plan, binding, [*binding.code.values()])
        self.zone = 0
        self.island_at = 0
        self.chunk = 0

    def run(self) -> Joined:
        self.prologue()
        if len(self.plan.policies) > 1:
            self.clear_stack(self.binding.begin)
        for policy in self.plan.policies:
            self._policy(policy)
        self.line("core: verdict")
        self.ways_out()
        self.untouched()
        return self.finish(f"emptcp_{self.plan.hook}")

    def _policy(self, policy: PlannedPolicy) -> None:
        self.line(f"{policy.table}/{policy.name}")
        end = f"end{policy.first}"
        steps = self.plan.steps[policy.first : policy.last + 1]
        self._enter(policy, end)
        # The counters of a policy and those of a named chain are in one chunk each, but not in the same.
        several = len({self._chunk(step) for step in steps}) > 1
        for before, step in zip(steps[:1] + steps, steps, strict=False):
            self.asm.label(f"step{step.index}")
            if several and step.home != before.home:
                self.load_counters(self._chunk(step))
            self._step(step, end)
        for step in steps:
            self._slow(step, end)
        self._island()
        self.asm.label(end)
        self.chunk = -1 if several else self.chunk

    def _chunk(self, step: Step) -> int:
        return self.binding.counter_slots[step.index] // CHUNK_STAGES

    def _enter(self, policy: PlannedPolicy, end: str) -> None:
        """Begin a policy: one that is switched off is skipped, and plain TCP is only for those who ask."""
        chunk = self._chunk(self.plan.steps[policy.first])
        if chunk != self.chunk:
            self.load_counters(chunk)
            self.chunk = chunk
        self._skip_switched_off(policy, end)
        if not policy.plain_tcp and any(other.plain_tcp for other in self.plan.policies):
            self._skip_plain_tcp(policy, end)

    def _skip_switched_off(self, policy: PlannedPolicy, end: str) -> None:
        """Behind the load of the counters, which the next policies go on with."""
        switch = layout.switch(self.plan.steps[policy.first].policy)
        self.asm.load_map_value(R1, self.binding.maps.parameters, switch)
        self.asm.emit(bpf.LDX_DW, R1, R1)
        self.asm.jump(end, bpf.JNE_IMM, R1, 0)

    def _skip_plain_tcp(self, policy: PlannedPolicy, end: str) -> None:
        asm, inside = self.asm, f"in{policy.first}"
        asm.emit(bpf.LDX_B, R2, PACKET, self.binding.packet.flags)
        asm.jump(inside, bpf.JSET_IMM, R2, self.binding.packet.mptcp_flag)
        if self.plan.flow:
            asm.emit(bpf.LDX_DW, R1, R10, self.flow)
            asm.jump(end, bpf.JEQ_IMM, R1, 0)
            asm.emit(bpf.LDX_B, R2, R1, self.binding.packet.flow_known)
            asm.jump(end, bpf.JEQ_IMM, R2, 0)
        else:
            asm.jump(end)
        asm.label(inside)

    def _step(self, step: Step, end: str) -> None:
        stage, slot = step.stage, self.binding.parameter_slots[step.index]
        policy = self.plan.policies[step.policy]
        name = f"{policy.table}/{policy.name}: {stage.id}"
        self.line(name)
        if stage.kind == "goto":
            self._goto(step, end)
            return
        if stage.fragment.state_size:
            self.asm.emit(bpf.LDX_DW, R5, R10, self.flow)
            self.asm.jump(f"noflow{step.index}", bpf.JEQ_IMM, R5, 0)
        self._body(step, slot, _owner(policy, stage))
        self.line(name)
        if stage.kind == "selector":
            self._after_selector(step, end)
        else:
            self._after_actor(step, end)

    def _body(self, step: Step, slot: Slot | None, owner: str) -> None:
        """Run the stage's fragment, or ask its set."""
        stage = step.stage
        if stage.member is not None:
            self.membership(stage.member, owner)
            return
        self.make_ready(stage.fragment)
        if stage.values:
            assert slot is not None
            self.parameter_address(slot)
            self.look_up_values(stage.values, slot.size, f"novalue{step.index}", owner)
            self.other_arguments(stage.fragment)
        else:
            self.arguments(stage.fragment, slot)
        self.run_fragment(stage.fragment, f"after{step.index}", owner)
        if step.policy + 1 < len(self.plan.policies):  # a program of one policy is spared the stores
            self.clear_stack(self.binding.code[stage.fragment])

    def _goto(self, step: Step, end: str) -> None:
        self._count(step)
        if step.if_match != step.index + 1:
            self.asm.jump(self._target(step.if_match, end))

    def _count(self, step: Step) -> None:
        """Count the packet and its bytes."""
        base = self._base(step)
        self.increment(base)
        self.count_bytes(base + 8)

    def _base(self, step: Step) -> int:
        return self.binding.counter_slots[step.index] % CHUNK_STAGES * COUNTER_BYTES

    def _target(self, edge: int, end: str) -> str:
        return end if edge == END else f"step{edge}"

    def _not_taken(self, step: Step, end: str) -> str:
        """Return where a step's second edge leads: out at once where no actor can have changed the packet."""
        alone = len(self.plan.policies) == 1 and not self.plan.companions
        if alone and step.if_not == END and step.stage.kind == "selector":
            return self.exit("untouched")
        return self._target(step.if_not, end)

    def _after_selector(self, step: Step, end: str) -> None:
        """Count, then follow the edge. Falls through where the next step is the edge's target."""
        asm, base, missed = self.asm, self._base(step), self._not_taken(step, end)
        stateful = bool(step.stage.fragment.state_size)
        self.increment(base)
        asm.jump(f"not{step.index}" if stateful else missed, bpf.JEQ32_IMM, R0, 0)
        self.increment(base + 16)
        self.count_bytes(base + 8)
        if stateful or step.if_match != step.index + 1:
            asm.jump(self._target(step.if_match, end))
        if not stateful:
            return
        asm.label(f"not{step.index}")
        self.load_reason()
        asm.jump(f"reason{step.index}", bpf.JNE_IMM, R2, 0)
        if step.if_not != step.index + 1:
            asm.jump(missed)

    def _after_actor(self, step: Step, end: str) -> None:
        asm = self.asm
        self._count(step)
        if self._verdicts(step):
            asm.jump(f"verdict{step.index}", bpf.JNE32_IMM, R0, 0)
        self.load_reason()
        asm.jump(f"reason{step.index}", bpf.JNE_IMM, R2, 0)
        if step.if_match != step.index + 1:
            asm.jump(self._target(step.if_match, end))

    def _slow(self, step: Step, end: str) -> None:
        """Out of the hot path: what a stage answers rarely."""
        stage, following = step.stage, self._not_taken(step, end)
        self.line(f"{self.plan.policies[step.policy].name}: {stage.id}, counters")
        if stage.fragment.state_size:
            self._slow_skipped(step, "no_flow", following)
        if stage.values:
            self._slow_skipped(step, "no_value", following)
        if stage.kind == "actor":
            self._slow_reason(step, self._target(step.if_match, end))
            if self._verdicts(step):
                self._slow_verdict(step, end)
        elif stage.fragment.state_size:
            self._slow_reason(step, following)

    def _slow_skipped(self, step: Step, reason: str, following: str) -> None:
        """A stage that lacks what it works with, and is not run."""
        asm = self.asm
        asm.label(f"{reason.replace('_', '')}{step.index}")
        self.increment(self._base(step))
        asm.emit(bpf.MOV64_IMM, R2, imm=reasons.REASONS.index(reason))
        self.count_reason(self._base(step))
        asm.jump(following)

    def _slow_reason(self, step: Step, following: str) -> None:
        asm = self.asm
        asm.label(f"reason{step.index}")
        asm.emit(bpf.ST_B, PACKET, 0, self.binding.packet.reason, 0)
        self.count_reason(self._base(step))
        asm.jump(following)

    def _verdicts(self, step: Step) -> frozenset[int]:
        return self.verdicts(step.stage.fragment, bool(step.gotos))

    def _slow_verdict(self, step: Step, end: str) -> None:
        """Verdicts other than NEXT; an unknown one means NEXT, as a stage that errs does."""
        asm, name = self.asm, f"verdict{step.index}"
        exits = {ACCEPT: "pass", DROP: "drop", REDIRECT: "redirect"}
        targets = {RETURN: end} | {verdict: self.exit(name) for verdict, name in exits.items()}
        asm.label(name)
        asm.emit(bpf.ST_B, PACKET, 0, self.binding.packet.reason, 0)
        self.leave(self._verdicts(step), targets, name, self._base(step))
        if step.gotos:
            self._chosen_chain(step)
        asm.jump(self._target(step.if_match, end))

    def _chosen_chain(self, step: Step) -> None:
        """Verdict GOTO: to one of the chains that the stage may choose, r3 is the packet; else as NEXT."""
        asm, base, other = self.asm, self._base(step), f"verdict{step.index}.{GOTO}"
        asm.jump(other, bpf.JNE32_IMM, R0, GOTO)
        asm.emit(bpf.LDX_W, R4, PACKET, self.binding.packet.chain)
        for number, first in step.gotos:
            following = f"{other}.{number}"
            asm.jump(following, bpf.JNE_IMM, R4, number)
            self.increment(base + 16)
            asm.jump(f"step{first}")
            asm.label(following)
        asm.emit(bpf.MOV64_IMM, R2, imm=reasons.REASONS.index("refused"))
        self.count_reason(base)
        asm.label(other)

    def exit(self, name: str) -> str:
        """Return the label of a way out that is near enough to be jumped to."""
        return f"{name}.{self.zone}"

    def _island(self) -> None:
        """Forward the exits when the code since the last island has grown long."""
        if len(self.asm) - self.island_at < ISLAND_EVERY:
            return
        zone, self.zone = self.zone, self.zone + 1
        for name in ("pass", "drop", "redirect", "left", "untouched", "lost"):
            if self.asm.leads_to(f"{name}.{zone}"):
                self.asm.label(f"{name}.{zone}")
                self.asm.jump(f"{name}.{self.zone}")
        self.island_at = len(self.asm)


def _owner(policy: PlannedPolicy, stage: Stage) -> str:
    """Return whose code a stage's is, for a refusal."""
    where = quoted(f"{policy.table}/{policy.name}")
    return f"stage '{stage.id}' (plugin '{stage.fragment.plugin}') of policy {where}"
