"""Told to stop, a server is not ready at once, and answers on for as long as those who send requests need to notice."""

import signal
from pathlib import Path

from tests.faults.load import Load, take_references
from tests.faults.serving import TIMEOUT_S, serving
from tests.waiting import wait_until

DELAY_S = 4.0


def test_it_is_not_ready_at_once_and_answers_on_for_the_delay(
    tmp_path: Path, index_dir: Path, embedder_dir: Path
) -> None:
    arguments = ("--drain-delay-s", str(DELAY_S))
    with serving(tmp_path, index=index_dir, embedder=embedder_dir, arguments=arguments) as serve:
        references = take_references(serve.grpc_url)
        with Load(serve.grpc_url, references) as load:
            assert wait_until(lambda: load.answered_since(0.0))
            serve.process.send_signal(signal.SIGTERM)
            assert wait_until(lambda: not serve.is_ready())
            noticed = len(load.tally.outcomes)
            assert serve.health()["draining"] is True
            assert serve.get("/health/live")[0] == 200
            assert wait_until(lambda: len(load.tally.outcomes) > noticed + 20)
        assert load.tally.failed() == []
        assert load.tally.faults() == []
        assert serve.process.wait(TIMEOUT_S) == 0
        assert "draining" in serve.events_of("triton")
