"""GGUF files as bases: the weights that were written come back, once; bad files are sentences."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers.processors import ByteLevel
from transformers import AutoTokenizer

from polylect.models.backbone import load_backbone
from polylect.models.gguf import cache, reader

gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate")

from helpers import gguf_files  # noqa: E402

SENTENCES = ["We read 24 new books", "Wir lesen im Garten.", "आज किताब ẞ"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POLYLECT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory):
    """A folder with gemma3.gguf, the model in it and its tokenizer; only for reading."""
    folder = tmp_path_factory.mktemp("gemma3")
    return folder, *gguf_files.gemma3(folder)


def same_logits(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    ids = torch.randint(4, 200, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-5, rtol=1e-4)


def test_llama_has_the_logits_and_the_ids_of_what_was_written(tmp_path: Path) -> None:
    tokenizer = gguf_files.byte_level()
    model = gguf_files.llama(tmp_path, tokenizer)
    again, same = load_backbone(str(tmp_path / "llama.gguf"))
    same_logits(again, model.eval())
    assert same(SENTENCES, add_special_tokens=False).input_ids == tokenizer(SENTENCES).input_ids
    assert (same.eos_token, same.bos_token) == ("<eos>", "<bos>")
    assert again.config._name_or_path == str(tmp_path / "llama.gguf")


def test_gemma3_comes_with_windows_tied_head_begin_token_and_bytes(written) -> None:
    folder, model, tokenizer = written
    again, same = load_backbone(str(folder))  # a folder that holds one
    same_logits(again, model.eval())
    config = again.config
    assert config.tie_word_embeddings
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert config.layer_types == model.config.layer_types and "full_attention" in config.layer_types
    assert config.rope_parameters == model.config.rope_parameters
    assert config.max_position_embeddings == 128
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (2, 1, 0)
    for text in SENTENCES:
        ids = same(text).input_ids
        assert ids[0] == same.bos_token_id
        assert same.decode(ids[1:]) == text  # ẞ through its bytes
        known = tokenizer.tokenize(text.replace("ẞ", ""))
        assert same.tokenize(text.replace("ẞ", "")) == known


def test_the_begin_token_that_the_file_says_is_added_where_transformers_leaves_it_out(
    written, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = AutoTokenizer.from_pretrained

    def without(*arguments, **settings):
        tokenizer = load(*arguments, **settings)
        if "gguf_file" in settings:
            tokenizer.backend_tokenizer.post_processor = ByteLevel()
        return tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", without)
    _, tokenizer = load_backbone(str(written[0]))
    for text in SENTENCES:
        ids = tokenizer(text).input_ids
        assert ids.count(2) == 1 and ids[0] == 2
        assert tokenizer(text, add_special_tokens=False).input_ids == ids[1:]


def test_the_second_start_does_not_read_the_file_again(
    written, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    first, _ = load_backbone(str(written[0] / "gemma3.gguf"))
    assert "de-quantised once" in capsys.readouterr().err
    monkeypatch.setattr(cache, "read_gguf", None)
    second, _ = load_backbone(str(written[0] / "gemma3.gguf"))
    assert "de-quantised" not in capsys.readouterr().err
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_two_processes_at_once_leave_one_whole_folder(written, own_cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from polylect.models.gguf.cache import unpack;"
        "print(unpack(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(written[0] / "gemma3.gguf")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert [str(path) for path in (own_cache / "gguf").iterdir()] == list(folders)
    load_backbone(str(written[0]))


def test_an_unfinished_folder_is_never_left(
    written, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: Path):
        raise ValueError("no")

    monkeypatch.setattr(cache, "read_gguf", fail)
    with pytest.raises(ValueError, match="no"):
        load_backbone(str(written[0]))
    assert not list((own_cache / "gguf").iterdir())


@pytest.mark.parametrize("share", [0.05, 0.6, 0.99])
def test_a_file_cut_short_is_a_sentence(written, tmp_path: Path, share: float) -> None:
    whole = (written[0] / "gemma3.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"cut\.gguf is cut short or damaged: copy it again"):
        load_backbone(str(tmp_path / "cut.gguf"))


def test_a_missing_extra_is_a_sentence(written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_NEEDED", ("no_such_package",))
    with pytest.raises(RuntimeError, match=r"pip install 'polylect\[gguf\]'"):
        load_backbone(str(written[0]))


def write_header(path: Path, architecture: str, **counts: int) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in counts.items():
        writer.add_uint16(key.replace("_", "."), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_other_bad_files_are_sentences(written, tmp_path: Path) -> None:
    write_header(tmp_path / "odd.gguf", "oddity")
    with pytest.raises(ValueError, match=r"architecture 'oddity' that transformers does not read"):
        load_backbone(str(tmp_path / "odd.gguf"))
    write_header(tmp_path / "part.gguf", "llama", split_count=3)
    with pytest.raises(ValueError, match=r"one of 3 parts of a model: join them"):
        load_backbone(str(tmp_path / "part.gguf"))
    with pytest.raises(ValueError, match=r"holds 2 GGUF files: give one, as in .*odd\.gguf"):
        load_backbone(str(tmp_path))
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(ValueError, match="is no GGUF file"):
        load_backbone(str(tmp_path / "text.gguf"))
    with pytest.raises(FileNotFoundError, match="is no folder: give one"):
        load_backbone("missing.gguf")


def test_a_part_that_transformers_passes_over_is_refused(tmp_path: Path) -> None:
    tokenizer = gguf_files.byte_level()
    real = gguf.GGUFWriter.write_header_to_file

    def with_rope_factors(self, *arguments):
        import numpy

        self.add_tensor("rope_freqs.weight", numpy.ones(4, numpy.float32))
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "write_header_to_file", with_rope_factors)
        gguf_files.llama(tmp_path, tokenizer)
    with pytest.raises(ValueError, match=r"pass over 4 of its numbers \(rope_freqs\.weight"):
        load_backbone(str(tmp_path / "llama.gguf"))
