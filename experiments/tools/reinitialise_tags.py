"""A copy of a base model whose direction tags can be told apart.

    python experiments/tools/reinitialise_tags.py BASE OUT

Tags that the base has never read have one and the same embedding (see
`polylect.models.vocabulary.untrained_tokens`). What trains attention or embeddings learns to tell
them apart; experts above them cannot.
"""

import argparse
from pathlib import Path

from polylect.models.backbone import load_backbone
from polylect.models.vocabulary.untrained_tokens import reinitialise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    model, tokenizer = load_backbone(str(arguments.base), dtype="float32")
    tags = [token for token in tokenizer.get_added_vocab() if token.startswith("<2")]
    reinitialise(model, sorted(tokenizer.convert_tokens_to_ids(tags)), arguments.seed)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    print(f"{arguments.out}: {', '.join(sorted(tags))}")


if __name__ == "__main__":
    main()
