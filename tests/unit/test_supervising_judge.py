"""The supervisor's judgement: what is seen decides what is done, and nothing else does."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag.supervising.backoff import LONGEST_S
from tritonrag.supervising.judge import GiveUp, Judge, Mend, Restart, Stage

NAMES = ("embedder", "retriever", "retrieve", "generator")
MOST = 3


def make_judge(*, stages: tuple[Stage, ...] | None = None) -> Judge:
    own = tuple(Stage(name=name, runs=frozenset({name})) for name in NAMES)
    return Judge(stages or own, most_failed_starts=MOST)


def all_answer(judge: Judge) -> None:
    for name in NAMES:
        judge.answered(name, "alive")


@pytest.fixture
def judge() -> Judge:
    judge = make_judge()
    all_answer(judge)
    return judge


def events(judge: Judge) -> list[tuple[str, str]]:
    return [(one.event, one.model) for one in judge.happenings()]


def test_a_server_is_ready_once_every_stage_has_answered() -> None:
    judge = make_judge()
    for name in NAMES:
        assert not judge.is_ready
        assert name in {one.stage for one in judge.degraded()}
        judge.answered(name, "alive")
    assert judge.is_ready
    assert judge.degraded() == ()
    assert judge.decide(0) is None


def test_a_dead_stub_makes_it_unready_at_once_and_has_its_model_reloaded(judge: Judge) -> None:
    judge.stub_down("retrieve", "stub_died", "its process 7 died")
    assert not judge.is_ready
    assert judge.decide(1) == Mend(model="retrieve", reason="its process 7 died")
    judge.mending("retrieve")
    assert judge.decide(1) is None
    assert not judge.is_asked("retrieve")
    assert judge.is_asked("embedder")
    judge.mended("retrieve", 3)
    assert judge.is_ready
    assert judge.repairs == 1
    assert [event for event, model in events(judge) if model == "retrieve"][-3:] == ["stub_died", "mending", "mended"]


def test_canaries_of_healthy_siblings_do_not_hide_a_dead_stub(judge: Judge) -> None:
    judge.stub_down("retrieve", "stub_died", "its process 7 died")
    judge.answered("retrieve", "alive")
    assert not judge.is_ready
    assert isinstance(judge.decide(1), Mend)


def test_a_model_without_a_process_is_reloaded_when_triton_says_so(judge: Judge) -> None:
    judge.answered("retriever", "dead", "Triton says: Stub process 'retriever_0_0' is not healthy.")
    assert judge.decide(0) == Mend(
        model="retriever", reason="Triton says: Stub process 'retriever_0_0' is not healthy."
    )


def test_a_late_canary_with_signs_of_work_is_slow_and_never_a_repair(judge: Judge) -> None:
    for second in range(1000):
        judge.late("retrieve", is_hung=False, reason="its canary has waited; it works")
        assert judge.decide(second) is None
    assert judge.is_ready
    assert judge.states()["retrieve"] == "slow"
    assert [one.stage for one in judge.degraded()] == ["retrieve"]
    assert events(judge).count(("stage_slow", "retrieve")) == 1


def test_a_slow_stage_is_good_again_after_answers_in_time_and_not_after_late_ones(judge: Judge) -> None:
    judge.late("retrieve", is_hung=False, reason="slow")
    for _ in range(10):
        judge.answered("retrieve", "alive", on_time=False)
    assert judge.states()["retrieve"] == "slow"
    for _ in range(3):
        judge.answered("retrieve", "alive")
    assert judge.states()["retrieve"] == "good"


def test_a_late_canary_without_any_sign_of_work_is_hung(judge: Judge) -> None:
    judge.late("embedder", is_hung=True, reason="its processes do nothing")
    assert judge.decide(0) == Mend(model="embedder", reason="its processes do nothing")


def test_a_stage_that_answers_with_errors_is_not_ready_and_not_restarted(judge: Judge) -> None:
    judge.answered("generator", "failing", "its canary fails: internal: no")
    assert not judge.is_ready
    assert judge.decide(100) is None
    judge.answered("generator", "alive")
    assert judge.is_ready


def test_models_that_are_down_at_once_are_reloaded_one_after_the_other(judge: Judge) -> None:
    for name in NAMES:
        judge.stub_down(name, "stub_died", "dead")
    reloaded = []
    while isinstance(action := judge.decide(0), Mend):
        judge.mending(action.model)
        assert judge.decide(0) is None
        assert not judge.is_ready
        judge.mended(action.model, 3)
        reloaded.append(action.model)
    assert sorted(reloaded) == sorted(NAMES)
    assert judge.is_ready


def test_a_model_that_does_not_come_back_is_a_restart_of_triton(judge: Judge) -> None:
    judge.stub_down("retrieve", "stub_died", "dead")
    judge.mending("retrieve")
    judge.mending_failed("retrieve", "it is not back after 8 s", 9)
    assert judge.decide(9) == Restart(reason="retrieve could not be reloaded: it is not back after 8 s")


def test_after_a_restart_every_stage_has_to_answer_again(judge: Judge) -> None:
    judge.triton_down("triton_ended", "Triton ended with status -9")
    assert not judge.is_ready
    assert judge.decide(0) == Restart(reason="Triton ended with status -9")
    judge.started(4)
    assert judge.restarts == 1
    assert not judge.is_ready
    all_answer(judge)
    assert judge.is_ready


def test_the_first_reason_of_a_restart_is_the_one_that_is_told(judge: Judge) -> None:
    judge.triton_down("triton_ended", "the cause")
    judge.triton_down("triton_ended", "a consequence")
    assert judge.decide(0) == Restart(reason="the cause")
    assert events(judge).count(("triton_ended", "triton")) == 1


def test_starts_that_fail_back_off_and_then_it_gives_up(judge: Judge) -> None:
    judge.triton_down("triton_ended", "gone")
    now_s = 0.0
    for number in range(MOST):
        assert isinstance(judge.decide(now_s), Restart)
        judge.start_failed("port taken", now_s)
        if number < MOST - 1:
            assert judge.decide(now_s) is None
        now_s += LONGEST_S
    assert judge.decide(now_s) == GiveUp(reason=f"Triton did not start {MOST} times in a row: port taken")


def test_a_start_that_succeeds_forgives_those_that_failed(judge: Judge) -> None:
    now_s = 0.0
    for _ in range(10):
        judge.triton_down("triton_ended", "gone")
        for _ in range(MOST - 1):
            judge.start_failed("no", now_s)
            now_s += LONGEST_S
        assert isinstance(judge.decide(now_s), Restart)
        judge.started(now_s)
        now_s += LONGEST_S


class TestAnEnsemble:
    @pytest.fixture
    def judge(self) -> Judge:
        parts = frozenset({"tokenizer", "encoder"})
        judge = make_judge(stages=(Stage(name="embedder", runs=parts), Stage(name="retrieve", runs=parts)))
        judge.answered("embedder", "alive")
        judge.answered("retrieve", "alive")
        return judge

    def test_is_ready_when_its_canary_answers(self, judge: Judge) -> None:
        assert judge.is_ready

    def test_has_the_part_reloaded_whose_process_died(self, judge: Judge) -> None:
        judge.stub_down("encoder", "stub_died", "dead")
        assert judge.decide(0) == Mend(model="encoder", reason="dead")
        judge.mending("encoder")
        assert not judge.is_asked("retrieve")

    def test_is_not_blamed_for_a_part_that_is_known_to_be_dead(self, judge: Judge) -> None:
        judge.stub_down("encoder", "stub_died", "dead")
        for stage in ("embedder", "retrieve"):
            judge.answered(stage, "dead", "Triton says: Stub process 'encoder_0_0' is not healthy.")
            judge.late(stage, is_hung=True, reason="hangs")
        assert judge.decide(0) == Mend(model="encoder", reason="dead")
        judge.mending("encoder")
        judge.mended("encoder", 1)
        assert judge.is_ready

    def test_that_hangs_has_triton_restarted_for_nobody_knows_which_part_it_is(self, judge: Judge) -> None:
        judge.late("embedder", is_hung=True, reason="hangs")
        assert judge.decide(0) == Restart(reason="embedder: hangs")


OBSERVATIONS: dict[str, Callable[[Judge, str, float], None]] = {
    "alive": lambda judge, name, _: judge.answered(name, "alive"),
    "failing": lambda judge, name, _: judge.answered(name, "failing", "fails"),
    "dead": lambda judge, name, _: judge.answered(name, "dead", "dead"),
    "slow": lambda judge, name, _: judge.late(name, is_hung=False, reason="slow"),
    "hung": lambda judge, name, _: judge.late(name, is_hung=True, reason="hung"),
    "died": lambda judge, name, _: judge.stub_down(name, "stub_died", "died"),
    "triton": lambda judge, _, __: judge.triton_down("triton_ended", "ended"),
}


def carry_out(judge: Judge, now_s: float, *, works: bool) -> bool:
    """Do what is decided; whether something was."""
    action = judge.decide(now_s)
    if isinstance(action, Mend):
        judge.mending(action.model)
        if works:
            judge.mended(action.model, now_s)
        else:
            judge.mending_failed(action.model, "no", now_s)
    elif isinstance(action, Restart):
        if works:
            judge.started(now_s)
        else:
            judge.start_failed("no", now_s)
    return action is not None


@given(st.lists(st.tuples(st.sampled_from(sorted(OBSERVATIONS)), st.sampled_from(NAMES), st.booleans()), max_size=40))
def test_whatever_is_seen_a_server_whose_repairs_work_becomes_ready_again(seen: list[tuple[str, str, bool]]) -> None:
    judge, now_s = make_judge(), 0.0
    for observation, name, acts in seen:
        OBSERVATIONS[observation](judge, name, now_s)
        now_s += 0.1
        if acts:
            carry_out(judge, now_s, works=True)
        assert judge.is_ready is (
            not judge.wants_restart and all(state in {"good", "slow"} for state in judge.states().values())
        )
    for _ in range(20):
        now_s += LONGEST_S
        carry_out(judge, now_s, works=True)
        for name in NAMES:
            for _ in range(3):
                judge.answered(name, "alive")
    assert judge.is_ready
    assert judge.degraded() == ()


@given(st.lists(st.tuples(st.sampled_from(sorted(OBSERVATIONS)), st.sampled_from(NAMES)), min_size=1, max_size=40))
def test_whatever_is_seen_a_server_that_can_not_start_is_given_up(seen: list[tuple[str, str]]) -> None:
    judge, now_s = make_judge(), 0.0
    judge.triton_down("triton_ended", "ended")
    for _ in range(MOST):
        for observation, name in seen:
            OBSERVATIONS[observation](judge, name, now_s)
        assert not judge.is_ready
        now_s += LONGEST_S
        assert carry_out(judge, now_s, works=False)
    assert isinstance(judge.decide(now_s + LONGEST_S), GiveUp)


@given(st.lists(st.sampled_from(["alive", "failing", "slow"]), max_size=60))
def test_busy_and_failing_stages_never_lead_to_an_action(seen: list[str]) -> None:
    judge = make_judge()
    for number, observation in enumerate(seen):
        OBSERVATIONS[observation](judge, NAMES[number % len(NAMES)], float(number))
        assert judge.decide(float(number)) is None


class TestWhatTritonSays:
    """May hold paths and tracebacks: it is told in events and in the last error, and never on the network."""

    SAYS = "ValueError: no; At: /home/somebody/model.py(4)"

    def told(self, judge: Judge) -> str:
        return " ".join(one.reason for one in judge.degraded())

    def test_of_a_stage_that_fails(self, judge: Judge) -> None:
        judge.answered("generator", "failing", "its canary fails with status 500", detail=self.SAYS)
        assert self.told(judge) == "its canary fails with status 500"
        assert self.SAYS in [one.reason for one in judge.happenings()]

    def test_of_its_end_and_of_a_start_that_fails(self, judge: Judge) -> None:
        judge.triton_down("triton_ended", "Triton was ended by SIGKILL", self.SAYS)
        assert self.told(judge) == "Triton was ended by SIGKILL"
        assert judge.decide(0) == Restart(reason=self.SAYS)
        for number in range(MOST):
            judge.start_failed("Triton does not start", number * LONGEST_S, self.SAYS)
            assert self.told(judge) == "Triton does not start"
        assert [one.reason for one in judge.happenings()].count(self.SAYS) == 1 + MOST
        giving_up = judge.decide(MOST * LONGEST_S)
        assert isinstance(giving_up, GiveUp)
        assert giving_up.reason.endswith(self.SAYS)

    def test_of_a_model_that_it_can_not_load(self, judge: Judge) -> None:
        judge.stub_down("retrieve", "stub_died", "dead")
        judge.mending("retrieve")
        judge.mending_failed("retrieve", "Triton reports an error", 0, self.SAYS)
        assert "/home" not in self.told(judge)
        assert judge.decide(0) == Restart(reason=f"retrieve could not be reloaded: {self.SAYS}")

    def test_once_it_is_started_again_nothing_of_it_is_left(self, judge: Judge) -> None:
        judge.triton_down("triton_ended", "Triton was ended by SIGKILL", self.SAYS)
        judge.started(1)
        judge.triton_down("triton_hung", "Triton is stopped by a signal")
        assert judge.decide(LONGEST_S) == Restart(reason="Triton is stopped by a signal")
