"""What a measurement cost: metrics as growth and ranges, CPU time and memory of the right processes."""

import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.waiting import wait_until

from tritonrag_client.errors import BadRequestError, UnavailableError
from tritonrag_perf import scrape_use
from tritonrag_perf.scrape import Scraper, parse, summarise
from tritonrag_perf.scrape_use import Use, Watch, Watching, children_cpu_s, session_cpu_s
from tritonrag_perf.spread import Spread

PAGE = """# TYPE nv_inference_count counter
nv_inference_count{{model="rag",version="1"}} {count}
# TYPE nv_queue gauge
nv_queue{{model="rag",version="1"}} {queue}
# TYPE tritonrag_seconds histogram
tritonrag_seconds_bucket{{le="1.0"}} {count}
tritonrag_seconds_bucket{{le="+Inf"}} {count}
tritonrag_seconds_sum {count}
tritonrag_seconds_count {count}
# TYPE python_info gauge
python_info 1
"""
COUNT = 'nv_inference_count_total{model="rag"}'
QUEUE = 'nv_queue{model="rag"}'


class Metrics:
    """A server whose counter is 10 more with each reading, and whose gauge follows a list and then stays."""

    def __init__(self) -> None:
        self.asked = 0
        self.queue = [3, 1, 8, 2]
        self.status = 200
        self.broken: set[int] = set()

    def page(self) -> tuple[int, str]:
        self.asked += 1
        queue = self.queue[min(self.asked, len(self.queue)) - 1]
        return (500 if self.asked in self.broken else self.status), PAGE.format(count=10 * self.asked, queue=queue)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def address(metrics: Metrics) -> Iterator[str]:
    with serving(metrics) as address:
        yield address


@contextmanager
def serving(metrics: Metrics) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = metrics.page()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_series_of_triton_and_ours_are_kept_and_buckets_are_not() -> None:
    reading = parse(PAGE.format(count=7, queue=2))
    assert reading.counters == {COUNT: 7, "tritonrag_seconds_sum": 7, "tritonrag_seconds_count": 7}
    assert reading.gauges == {QUEUE: 2}


def test_counters_become_growth_and_gauges_a_range() -> None:
    readings = [parse(PAGE.format(count=count, queue=queue)) for count, queue in ((5, 3), (6, 9), (25, 1))]
    scraped = summarise(readings)
    assert scraped.counters[COUNT] == 20
    assert scraped.gauges == {QUEUE: Spread(median=3, low=1, high=9)}
    assert scraped.readings == 3


def test_a_counter_that_came_up_meanwhile_counts_from_nothing_and_one_that_stood_still_is_left_out() -> None:
    before, after = parse(""), parse(PAGE.format(count=4, queue=0))
    assert summarise([before, after]).counters[COUNT] == 4
    assert summarise([after, after]).counters == {}


def test_a_counter_that_went_down_is_another_server() -> None:
    with pytest.raises(UnavailableError, match="started anew"):
        summarise([parse(PAGE.format(count=4, queue=0)), parse(PAGE.format(count=3, queue=0))])


def test_it_reads_at_both_ends_and_in_between(metrics: Metrics, address: str) -> None:
    with Scraper(address, interval_s=0.01) as scraper:
        assert wait_until(lambda: metrics.asked >= 4)
    scraped = scraper.scraped()
    assert scraped.readings == metrics.asked
    assert scraped.counters[COUNT] == 10 * (metrics.asked - 1)
    assert (scraped.gauges[QUEUE].low, scraped.gauges[QUEUE].high) == (1, 8)


def test_a_reading_in_between_that_fails_is_counted_and_one_at_the_end_is_raised(
    metrics: Metrics, address: str
) -> None:
    metrics.broken = {2}
    with Scraper(address, interval_s=0.01) as scraper:
        assert wait_until(lambda: metrics.asked >= 3)
    assert scraper.scraped().missed == 1
    scraper = Scraper(address, interval_s=60)
    with pytest.raises(BadRequestError, match="status 500"), scraper:
        metrics.status = 500


def break_down(metrics: Metrics) -> str:
    metrics.status = 500
    return "mine"


def test_an_error_in_the_block_is_not_hidden_by_the_metrics(metrics: Metrics, address: str) -> None:
    with pytest.raises(KeyError, match="mine"), Scraper(address):
        raise KeyError(break_down(metrics))


def test_where_there_are_no_metrics_that_is_told_before_the_block(address: str) -> None:
    del address
    with pytest.raises(UnavailableError, match=r"no metrics at 127\.0\.0\.1:1"), Scraper("127.0.0.1:1"):
        pytest.fail("the block was entered")
    with pytest.raises(BadRequestError, match="can't be read"):
        parse("<html>\n")


@contextmanager
def session(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a session of its own, once it has said that it is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint(flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


SPIN = "import time\nwhile time.process_time() < 0.3: pass"
FORK_AND_SPIN = f"import os, signal\nif os.fork() == 0:\n  exec({SPIN!r})\n  signal.pause()"


def test_cpu_time_is_that_of_the_session_and_of_no_other() -> None:
    with session(FORK_AND_SPIN) as busy, session("") as idle:
        assert wait_until(lambda: session_cpu_s(busy.pid) >= 0.25)  # 0.3, in whole ticks
        assert session_cpu_s(idle.pid) < session_cpu_s(busy.pid)
        assert len(scrape_use.session_members(busy.pid)) == 2


def test_a_measurement_has_the_cpu_time_of_both_sides_a_question_and_the_server_s_memory() -> None:
    with session("kept = bytearray(b'x') * 2**25") as server:
        with Watching(Watch(session=server.pid)) as watching:
            before = children_cpu_s()
            subprocess.run([sys.executable, "-c", SPIN], check=True)
            spent_s = children_cpu_s() - before
        use = watching.use(questions=10)
    assert spent_s >= 0.3
    assert use.client_cpu_ms == pytest.approx(1e3 * spent_s / 10, rel=0.01)
    assert use.server_cpu_ms is not None
    assert 0 <= use.server_cpu_ms < use.client_cpu_ms
    assert use.server_pss_bytes is not None
    assert use.server_pss_bytes > 2**25
    assert use.metrics is None


def test_of_a_server_elsewhere_only_what_can_be_seen_is_told(metrics: Metrics, address: str) -> None:
    with Watching(Watch()) as watching:
        pass
    assert watching.use(questions=0) == Use(questions=0, client_cpu_ms=0.0)
    with Watching(Watch(metrics=address)) as watching:
        pass
    seen = watching.use(questions=1).metrics
    assert seen is not None
    assert seen.counters[COUNT] == 10 * (metrics.asked - 1)
