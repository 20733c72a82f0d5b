#!/usr/bin/env python3
"""Has llama.cpp read GGUF files that this program wrote, and compares what it computes with the numbers beside them.

It needs llama-cpp-python (`pip install llama-cpp-python`, which builds llama.cpp), so it is run by hand:

    ENTROSCOPE_LLAMA_CPP_OUT=/tmp/gguf cargo test --lib files_for_llama_cpp -- --ignored
    python3 tests/llama_cpp.py /tmp/gguf/cases.json

The first line writes the reference checkpoints of tests/fixtures (or of the folder ENTROSCOPE_LLAMA_CPP_FROM) as GGUF
(in f32, or as ENTROSCOPE_LLAMA_CPP_TYPE says: q8_0, q4_k, ... with --tolerance to match), with a list of cases: {"file": ..., "prompt": [ids], "greedy": [ids], "logits": [those after the prompt]}. Files are
looked for beside the list.

llama.cpp does not compute everything: it takes fixed numbers for Gemma's scale and SmolLM 3's interval, knows no
sliding window of Mistral and Phi 3 and no biases in the projections of Mamba and in LFM 2's convolutions, and takes
Phi 3's long factors or its short ones by the context asked for. Checkpoints with such numbers are expected to fail.

Exit status 1 if anything differs or cannot be read.
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np

# This file has the module's name: it is not to find itself.
sys.path = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]
try:
    import llama_cpp
except ImportError:
    sys.exit("llama-cpp-python is not installed: pip install llama-cpp-python")


class Reader:
    """A model as llama.cpp computes it, on the CPU and with an f32 cache."""

    def __init__(self, path, context):
        self.model = llama_cpp.Llama(
            model_path=str(path), n_gpu_layers=0, logits_all=True, n_ctx=context, n_batch=context,
            type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False, verbose=False)
        self.read = 0

    def logits(self, ids):
        """Read further tokens; the logits after the last one."""
        self.model.eval(ids)
        self.read += len(ids)
        return np.array(self.model.scores[self.read - 1], dtype=np.float64)


def compare(case, folder, tolerance, steps):
    """Sentences about what differs, and the largest difference of a logit."""
    reader = Reader(folder / case["file"], args.context)
    logits = reader.logits(case["prompt"])
    expected = np.array(case["logits"])
    if logits.shape != expected.shape:
        return [f"it has {logits.shape[0]} logits instead of {expected.shape[0]}"], float("nan")
    worst = float(np.abs(logits - expected).max())
    spread = float(expected.std())
    problems = []
    if not worst <= tolerance * spread:
        at = int(np.abs(logits - expected).argmax())
        problems.append(f"the logit of token {at} is {logits[at]:.5f} instead of {expected[at]:.5f} "
                        f"(the logits' standard deviation is {spread:.3f})")
    for step, token in enumerate(case["greedy"][:steps]):
        found = int(logits.argmax())
        if found != token:
            # Either of two that are nearly equal may win.
            if logits[found] - logits[token] > 2 * tolerance * spread:
                problems.append(f"its greedy token {step} is {found} instead of {token}")
            break
        logits = reader.logits([token])
    return problems, worst


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("cases", type=Path, help="the list of cases (JSON)")
parser.add_argument("--only", nargs="*", help="names of files to read, without .gguf (default: all)")
parser.add_argument("--tolerance", type=float, default=5e-3,
                    help="largest difference of a logit, in standard deviations of the logits: llama.cpp looks up gelu in "
                         "a table of 16-bit numbers (default: %(default)s)")
parser.add_argument("--context", type=int, default=256, help="tokens of context (default: %(default)s)")
parser.add_argument("--steps", type=int, default=12, help="greedy tokens to compare (default: %(default)s)")
args = parser.parse_args()

failed = 0
cases = json.loads(args.cases.read_text())
cases = [c for c in cases if not args.only or Path(c["file"]).stem in args.only]
if not cases:
    sys.exit("There is nothing to compare: the list holds no such case.")
for case in cases:
    what = f"{case['file']}, prompt of {len(case['prompt'])} tokens"
    try:
        problems, worst = compare(case, args.cases.parent, args.tolerance, args.steps)
    except Exception as e:
        problems, worst = [f"llama.cpp cannot read it: {e}"], float("nan")
    if problems:
        failed += 1
        print(f"FAILED {what}: {'; '.join(problems)}.")
    else:
        print(f"agrees {what}: logits within {worst:.1e}, the same greedy tokens.")
print(f"{len(cases) - failed} of {len(cases)} cases agree.")
sys.exit(1 if failed else 0)
