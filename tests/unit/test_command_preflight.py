"""What can't be served is told by its folder in an instant, before Triton starts."""

from pathlib import Path

import pytest
from index_fakes import FakeEncoder, document

from tritonrag.commands import demo
from tritonrag.preflight import look_at, look_at_encoder
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.embedding.format import EmbedderManifest, Parity
from tritonrag_backends.index.format import CURRENT
from tritonrag_backends.settings import EmbedderSettings, EncoderSettings, Settings
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError
from tritonrag_export.indexing import build_index

ONE, OTHER = "a" * 64, "b" * 64


def make_embedder(folder: Path, fingerprint: str = ONE) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.int8.onnx").touch()
    parity = Parity(texts=1, fp32_max_abs_difference=0.0, int8_min_cosine=1.0, int8_mean_cosine=1.0)
    EmbedderManifest(
        name="toy",
        architecture="none",
        dim=2,
        max_tokens=8,
        pooling="mean",
        fingerprint=fingerprint,
        files={},
        parity=parity,
    ).save(folder)
    return folder


def make_index(folder: Path, fingerprint: str = ONE) -> Path:
    build_index([document("uri", "text")], [FakeEncoder(name="toy", fingerprint=fingerprint, dim=2)], folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    embedder, index = make_embedder(tmp_path / "embedder"), make_index(tmp_path / "index")
    return Settings(index=index, embedder=EmbedderSettings(model=embedder))


def test_what_can_be_served_is_told_with_its_version_and_size(settings: Settings) -> None:
    served = look_at(settings)
    assert (served.index_version, served.passages) == (1, 1)


def test_a_missing_index_is_named_with_the_command(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere.*tritonrag index build"):
        look_at(settings.model_copy(update={"index": tmp_path / "nowhere"}))


def test_an_empty_directory_is_no_index(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match=r"empty.*tritonrag index build"):
        look_at(settings.model_copy(update={"index": tmp_path / "empty"}))


def test_a_damaged_index_is_told(settings: Settings) -> None:
    (settings.index / CURRENT).write_text("nonsense\n")
    with pytest.raises(InternalError, match="nonsense"):
        look_at(settings)


def test_an_index_of_another_embedding_model_is_told_with_both_and_the_way_out(
    settings: Settings, tmp_path: Path
) -> None:
    other = make_index(tmp_path / "other", OTHER)
    with pytest.raises(BadRequestError) as caught:
        look_at(settings.model_copy(update={"index": other}))
    message = caught.value.message
    assert all(part in message for part in (str(other), OTHER[:12], ONE[:12], "--embedder", "build the index again"))


def test_a_missing_embedding_model_is_named_with_the_command(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere.*tritonrag export embedder"):
        look_at(settings.model_copy(update={"embedder": EmbedderSettings(model=tmp_path / "nowhere")}))


def test_a_missing_precision_of_the_embedding_model_is_named(settings: Settings) -> None:
    model = settings.embedder.model
    with pytest.raises(NotFoundError, match=r"model\.fp32\.onnx"):
        look_at(settings.model_copy(update={"embedder": EmbedderSettings(model=model, precision="fp32")}))


def test_the_encoder_is_looked_at_in_profile_gpu_alone(settings: Settings) -> None:
    assert look_at_encoder(ServeOptions(settings=settings)) is None
    assert look_at_encoder(ServeOptions(settings=settings, profile="gpu")) == "the Python model, on the CPU"


def test_an_encoder_that_can_not_run_as_wanted_is_told_with_the_way_out(settings: Settings) -> None:
    settings = settings.model_copy(update={"encoder": EncoderSettings(runtime="onnxruntime")})
    with pytest.raises(NotFoundError, match=r"no such backend.*set it to python"):
        look_at_encoder(ServeOptions(settings=settings, profile="gpu"))


class TestTheDemoReusesItsIndex:
    @pytest.fixture(autouse=True)
    def _built(self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(demo, "STAMP", tmp_path / "stamp.json")
        demo.stamp(settings)

    def test_where_it_is_there(self, settings: Settings) -> None:
        assert demo.is_built(settings)

    def test_but_not_of_another_python(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.version", "3.99")
        assert not demo.is_built(settings)

    def test_nor_of_another_embedding_model(self, settings: Settings, tmp_path: Path) -> None:
        other = EmbedderSettings(model=make_embedder(tmp_path / "other", OTHER))
        assert not demo.is_built(settings.model_copy(update={"embedder": other}))

    def test_nor_where_it_was_removed_or_its_build_never_finished(self, settings: Settings, tmp_path: Path) -> None:
        assert not demo.is_built(settings.model_copy(update={"index": tmp_path / "nowhere"}))
        demo.STAMP.write_text("{")
        assert not demo.is_built(settings)
