"""The live version is followed: every change is taken up, and what can't be opened never takes the place of what serves."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from tritonrag_backends.index.live import LiveIndex, ReloadEvent
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError


@dataclass(eq=False)
class Version:
    """Stands in for an Index."""

    manifest: str
    reused: "Version | None" = None
    degraded: str = ""

    def doubted(self, why: str) -> "Version":
        return replace(self, degraded=why)


@dataclass
class Directory:
    """Stands in for an index directory: what CURRENT holds, and what is wrong with a version."""

    name: str = "v1"
    broken: dict[str, Exception] = field(default_factory=dict)
    while_opening: list[Callable[[], None]] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    damage: str = ""
    takes_s: float = 0.0
    now_s: float = 0.0

    def read_name(self) -> str:
        if error := self.broken.get("CURRENT"):
            raise error
        return self.name

    def open_index(self, old: Version | None) -> Version:
        name = self.name
        self.opened.append(name)
        self.now_s += self.takes_s
        if self.while_opening:
            self.while_opening.pop(0)()
        if name in self.broken:
            raise self.broken[name]
        return Version(manifest=name, reused=old)


class Followed:
    """A LiveIndex whose looks the test makes."""

    def __init__(self, directory: Directory, tell: Callable[[ReloadEvent], None] | None = None) -> None:
        self.events: list[ReloadEvent] = []
        self.live = LiveIndex(
            read_name=directory.read_name,
            open_index=directory.open_index,
            poll_s=0.001,
            on_reload=tell or self.events.append,
            damage=lambda _: directory.damage,
            clock=lambda: directory.now_s,
        )

    def serves(self) -> str:
        return self.live.current.manifest


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
def followed(directory: Directory) -> Followed:
    return Followed(directory)


def test_a_new_version_is_served_from_the_next_look_and_reuses_the_old(
    directory: Directory, followed: Followed
) -> None:
    old = followed.live.current
    directory.name = "v2"
    followed.live.look()
    assert followed.serves() == "v2"
    assert followed.live.current.reused is old
    assert followed.events == [ReloadEvent(index=followed.live.current)]


def test_an_older_version_is_taken_up_too(directory: Directory, followed: Followed) -> None:
    for name in ("v2", "v1", "v3", "v2"):
        directory.name = name
        followed.live.look()
        assert followed.serves() == name
    assert len(followed.events) == 4


def test_where_nothing_changed_nothing_is_opened_nor_told(directory: Directory, followed: Followed) -> None:
    for _ in range(3):
        followed.live.look()
    assert directory.opened == ["v1"]
    assert followed.events == []


@pytest.mark.parametrize("error", [InternalError("damaged"), BadRequestError("another model"), ValueError("a bug")])
def test_a_version_that_fails_leaves_the_old_one_serving(
    directory: Directory, followed: Followed, error: Exception
) -> None:
    old = followed.live.current
    directory.name, directory.broken = "v2", {"v2": error}
    followed.live.look()
    assert followed.live.current is old
    assert followed.events == [ReloadEvent(index=old, error=error)]


def test_a_failure_is_told_each_time_and_marked_as_repeated_after_the_first(
    directory: Directory, followed: Followed
) -> None:
    directory.name, directory.broken = "v2", {"v2": InternalError("damaged")}
    for _ in range(3):
        followed.live.look()
    directory.broken = {"v2": InternalError("damaged elsewhere")}
    followed.live.look()
    assert [event.repeated for event in followed.events] == [False, True, True, False]


def test_a_version_that_was_mended_is_taken_up(directory: Directory, followed: Followed) -> None:
    directory.name, directory.broken = "v2", {"v2": InternalError("damaged")}
    followed.live.look()
    directory.broken = {}
    followed.live.look()
    assert followed.serves() == "v2"


def test_the_same_failure_after_a_good_version_is_news_again(directory: Directory, followed: Followed) -> None:
    directory.broken = {"v2": InternalError("damaged")}
    for name in ("v2", "v1", "v2", "v3", "v2"):
        directory.name = name
        followed.live.look()
    assert [event.repeated for event in followed.events if event.error] == [False, False, False]
    assert followed.serves() == "v3"


def test_a_current_that_is_gone_or_damaged_leaves_the_old_version_serving(
    directory: Directory, followed: Followed
) -> None:
    directory.broken = {"CURRENT": NotFoundError("gone")}
    followed.live.look()
    assert followed.serves() == "v1"
    assert [type(event.error) for event in followed.events] == [NotFoundError]


def test_a_version_that_vanished_because_a_newer_one_came_is_no_failure(
    directory: Directory, followed: Followed
) -> None:
    directory.name, directory.broken = "v2", {"v2": InternalError("vanished")}
    directory.while_opening = [lambda: setattr(directory, "name", "v3")]
    followed.live.look()
    assert directory.opened == ["v1", "v2", "v3"]
    assert followed.serves() == "v3"
    assert [event.error for event in followed.events] == [None]


def test_so_it_is_at_the_start() -> None:
    directory = Directory(broken={"v1": InternalError("vanished")})
    directory.while_opening = [lambda: setattr(directory, "name", "v2")]
    assert Followed(directory).serves() == "v2"


def test_an_index_that_can_not_be_opened_at_the_start_is_refused(directory: Directory) -> None:
    directory.broken = {"v1": InternalError("damaged")}
    with pytest.raises(InternalError, match="damaged"):
        Followed(directory)


def test_a_version_that_came_between_reading_its_name_and_opening_is_told_once(
    directory: Directory, followed: Followed
) -> None:
    real = directory.read_name
    names = iter(["v2", "v2"])  # CURRENT said v2 when it was read, v3 when it was opened
    directory.name = "v3"
    followed.live._read_name = lambda: next(names, None) or real()
    for _ in range(3):
        followed.live.look()
    assert followed.serves() == "v3"
    assert directory.opened == ["v1", "v3", "v3"]
    assert len(followed.events) == 1


def test_a_large_version_that_fails_is_left_alone_ten_times_as_long_as_the_try_took(
    directory: Directory, followed: Followed
) -> None:
    directory.name, directory.broken, directory.takes_s = "v2", {"v2": InternalError("damaged")}, 3.0
    looks = []
    for _ in range(40):
        before = len(followed.events)
        followed.live.look()
        looks.append(len(followed.events) - before)
        directory.now_s += 1.0
    assert looks == [1, *[0] * 29, 1, *[0] * 9]
    directory.name = "v3"  # which nobody tried yet
    followed.live.look()
    assert followed.serves() == "v3"


def test_the_thread_looks_by_itself_until_it_is_closed(directory: Directory) -> None:
    taken_up = threading.Event()
    live = LiveIndex(
        read_name=directory.read_name,
        open_index=directory.open_index,
        poll_s=0.001,
        on_reload=lambda _: taken_up.set(),
    )
    live.follow()
    directory.name = "v2"
    assert taken_up.wait(10)
    assert live.current.manifest == "v2"
    live.close()
    assert not live._thread.is_alive()
    assert live.current.manifest == "v2"


def test_closing_what_was_never_followed_is_allowed(followed: Followed) -> None:
    followed.live.close()


def test_while_a_version_is_being_opened_the_old_one_is_there(directory: Directory, followed: Followed) -> None:
    seen: list[str] = []
    directory.name, directory.while_opening = "v2", [lambda: seen.append(followed.serves())]
    followed.live.look()
    assert seen == ["v1"]


def test_a_served_version_whose_files_are_changed_is_told_once_and_says_so_itself(
    directory: Directory, followed: Followed
) -> None:
    directory.damage = "a file was changed"
    for _ in range(3):
        followed.live.look()
    assert [(event.damage, event.error) for event in followed.events] == [("a file was changed", None)]
    assert followed.live.current.degraded == "a file was changed"
    assert followed.serves() == "v1"


def test_the_version_that_comes_after_it_is_trusted_again(directory: Directory, followed: Followed) -> None:
    directory.damage = "a file was changed"
    followed.live.look()
    directory.damage, directory.name = "", "v2"
    followed.live.look()
    assert (followed.serves(), followed.live.current.degraded) == ("v2", "")


def test_after_damage_the_next_version_takes_nothing_over(directory: Directory, followed: Followed) -> None:
    directory.damage = "a file was changed"
    followed.live.look()
    directory.name = "v2"
    followed.live.look()
    assert (followed.serves(), followed.live.current.reused) == ("v2", None)
    directory.damage, directory.name = "", "v3"
    second = followed.live.current
    followed.live.look()
    assert followed.live.current.reused is second


def test_damage_is_not_forgotten_when_it_can_no_longer_be_seen(directory: Directory, followed: Followed) -> None:
    directory.damage = "a file was changed"
    followed.live.look()
    directory.damage, directory.name = "", "v2"
    followed.live.look()
    assert (followed.serves(), followed.live.current.reused) == ("v2", None)


def test_damage_and_a_new_version_between_two_looks_are_both_told(directory: Directory, followed: Followed) -> None:
    directory.damage, directory.name = "a file was changed", "v2"
    followed.live.look()
    assert (followed.serves(), followed.live.current.reused) == ("v2", None)
    assert [event.damage for event in followed.events] == ["a file was changed", ""]


def test_what_is_damaged_while_a_version_is_opened_is_not_taken_over(directory: Directory, followed: Followed) -> None:
    directory.name, directory.while_opening = "v2", [lambda: setattr(directory, "damage", "a file was changed")]
    followed.live.look()
    assert (followed.serves(), followed.live.current.degraded) == ("v1", "a file was changed")
    followed.live.look()
    assert (followed.serves(), followed.live.current.reused) == ("v2", None)


@pytest.mark.parametrize("broken", ["CURRENT", "v2"])
def test_damage_is_told_while_the_next_version_can_not_be_opened(
    directory: Directory, followed: Followed, broken: str
) -> None:
    directory.name, directory.broken, directory.takes_s = "v2", {broken: InternalError("damaged")}, 3.0
    followed.live.look()
    directory.damage = "a file was changed"
    followed.live.look()
    assert (followed.serves(), followed.live.current.degraded) == ("v1", "a file was changed")


def test_whoever_can_not_be_told_of_damage_is_not_told_of_a_failed_version(directory: Directory) -> None:
    events: list[ReloadEvent] = []

    def tell(event: ReloadEvent) -> None:
        events.append(event)
        raise ValueError("the metric is gone")

    followed = Followed(directory, tell)
    directory.damage = "a file was changed"
    with pytest.raises(ValueError, match="the metric is gone"):
        followed.live.look()
    followed.live.look()
    assert [(event.damage, event.error) for event in events] == [("a file was changed", None)]
    assert followed.live.current.degraded == "a file was changed"


@pytest.mark.parametrize("broken", [{}, {"v2": InternalError("damaged")}])
def test_the_thread_outlives_whoever_can_not_be_told(
    directory: Directory, broken: dict[str, Exception], caplog: pytest.LogCaptureFixture
) -> None:
    directory.broken = broken
    told, third = threading.Event(), threading.Event()

    def tell(event: ReloadEvent) -> None:
        (third if event.index.manifest == "v3" else told).set()
        raise ValueError("the metric is gone")

    live = Followed(directory, tell).live
    live.follow()
    directory.name = "v2"
    assert told.wait(10)
    directory.name = "v3"
    assert third.wait(10)
    live.close()
    assert "the metric is gone" in caplog.text
