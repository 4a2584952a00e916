"""Every family, with its own begin, end and padding tokens and chat markup: what is learned ends.

A random model of two layers learns two translations by heart; then generation from the prompts
alone must give them back and stop.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from polylect.data.batch import Example, collate
from polylect.data.prompt import template
from polylect.models.backbone import load_backbone, random_model
from polylect.models.families import FAMILIES
from polylect.models.tokenizer import train_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Speaks:
    """The control tokens of a family's published checkpoints."""

    bos: str | None
    eos: str
    pad: str | None
    begins: bool  # whether its tokenizer puts the begin token by itself
    markup: tuple[str, ...] = ()
    chat: str | None = None
    turn_end: str | None = None


QWEN = Speaks(
    None, "<|endoftext|>", "<|endoftext|>", False, ("<|im_start|>", "<|im_end|>"), CHATML,
    "<|im_end|>",
)  # fmt: skip
GEMMAS = Speaks(
    "<bos>", "<eos>", "<pad>", True, ("<start_of_turn>", "<end_of_turn>"), GEMMA, "<end_of_turn>"
)
SPEAKS = {
    "llama": Speaks(
        "<|begin_of_text|>", "<|end_of_text|>", None, True,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), LLAMA3, "<|eot_id|>",
    ),
    "qwen2": QWEN,
    "qwen3": QWEN,
    "gemma2": GEMMAS,
    "gemma3": GEMMAS,
    "mistral": Speaks("<s>", "</s>", None, True, ("[INST]", "[/INST]"), MISTRAL, "</s>"),
    "bloom": Speaks("<s>", "</s>", "<pad>", False),
    "gpt_neox": Speaks("<|endoftext|>", "<|endoftext|>", None, False),
}  # fmt: skip

PAIRS = [
    ("The small cat sees the old house.", "Die kleine Katze sieht das alte Haus."),
    ("We read.", "Wir lesen heute das neue Buch."),
]


def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    speaks = SPEAKS[name]
    controls = dict.fromkeys(t for t in (speaks.bos, speaks.eos, speaks.pad) if t is not None)
    texts = [text for pair in PAIRS for text in pair] + ["Translate from English into German"] * 5
    backend = train_tokenizer(texts, 512, [*controls, *speaks.markup]).backend_tokenizer
    begin = [(speaks.bos, backend.token_to_id(speaks.bos))] if speaks.begins else []
    single = f"{speaks.bos} $A" if speaks.begins else "$A"
    backend.post_processor = TemplateProcessing(single=single, special_tokens=begin)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=speaks.bos, eos_token=speaks.eos, pad_token=speaks.pad
    )
    made.chat_template = speaks.chat
    return made


def base(name: str, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A random model of the family as if downloaded: saved, then loaded."""
    tokenizer = tokenizer_of(name)
    sizes = {"layers": 2, "hidden": 64, "ffn": 128, "heads": 2, "context": 256}
    random_model(name, tokenizer, seed=0, **sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_backbone(str(folder))


def learn(model: PreTrainedModel, rows: list[Example], pad: int) -> None:
    batch = collate(rows, pad, "right")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(150):
        loss = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.05:
            return
    pytest.fail(f"not learned by heart: {loss.item():.2f}")


CASES = [(n, t) for n in FAMILIES for t in ("plain", "chat") if t == "plain" or SPEAKS[n].chat]


@pytest.mark.parametrize(("name", "style"), CASES)
def test_learned_translations_come_back_and_stop(name: str, style: str, tmp_path: Path) -> None:
    model, tokenizer = base(name, tmp_path)
    form, speaks = template(style), SPEAKS[name]
    rows = [
        Example(form.encode(tokenizer, s, "en-de"), form.encode_target(tokenizer, t), "en-de")
        for s, t in PAIRS
    ]
    pad, ends = tokenizer.pad_token_id, form.end_ids(tokenizer)
    end = speaks.turn_end if style == "chat" else speaks.eos
    assert tokenizer.convert_ids_to_tokens(ends[0]) == end
    begins = tokenizer.bos_token_id is not None and speaks.bos != speaks.eos
    for row in rows:
        assert (row.prompt[0] == tokenizer.bos_token_id) is begins
        assert tokenizer.bos_token_id not in row.prompt[1:] + row.target[:-1]

    # Learned: the target with its end, by position, though padding may be the end token too.
    batch = collate(rows, pad, "right")
    assert (batch.attention_mask == 0).any()
    for labels, row in zip(batch.labels, rows, strict=True):
        assert labels[labels != -100].tolist() == row.target and row.target[-1] == ends[0]

    learn(model, rows, pad)
    asked = collate([Example(r.prompt, [], r.direction) for r in rows], pad, "left")
    with torch.no_grad():
        generated = model.generate(
            input_ids=asked.input_ids, attention_mask=asked.attention_mask,
            max_new_tokens=100, do_sample=False, eos_token_id=ends,
        )  # fmt: skip
    generated = generated[:, asked.input_ids.shape[1] :]
    for answer, row, (_, target) in zip(generated, rows, PAIRS, strict=True):
        stop = len(row.target)
        assert answer[:stop].tolist() == row.target
        assert set(answer[stop:].tolist()) <= {pad}
        assert tokenizer.decode(answer, skip_special_tokens=True).strip() == target
    assert generated.shape[1] == max(len(row.target) for row in rows)
