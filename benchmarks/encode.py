"""Speed of a BERT's hidden states against transformers and ONNX Runtime on the same weights, in one interleaved run.

    python benchmarks/encode.py [--rounds 5] [--length 128] [--batch 32] [--threads 2] [--only NAME] [--write]

BERT-base (110 million parameters) with random weights reads random ids, one text at a time and a batch of them. Every
contender takes its turn in every round; ratios are made within a round and reported as medians with their spread. The
largest difference from transformers' float32 hidden states shows that all compute the same model. Needs the packages
`transformers` and, for ONNX Runtime, `onnx` and `onnxruntime`; a contender whose package is missing is left out.
ONNX Runtime's model goes through its own optimizer for BERT, and for int8 through its dynamic quantisation.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from common import machine, markdown_table, spread, versions, write_result
from rich.console import Console
from torch import Tensor

from tripel.decode.prepare import Engine, Precision, prepare_encoder
from tripel.hf import bert as layout
from tripel.models.build import build
from tripel.models.catalog import bert_base
from tripel.models.config import Vocabulary
from tripel.models.encoder import Encoder

VOCABULARY = Vocabulary(source_size=30522, target_size=30522, pad_id=0, eos_id=102, start_id=101, mask_id=103)
PEER = {"float32": "transformers float32", "bfloat16": "transformers bfloat16"}
ONNX = {"float32": "ONNX Runtime float32", "int8": "ONNX Runtime int8"}


@dataclass(frozen=True)
class Contender:
    """read(ids_BT) gives hidden states (B, T, D)."""

    name: str
    precision: str
    read: Callable[[Tensor], Tensor]


def main() -> None:
    arguments = _arguments()
    console = Console(stderr=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    model = build(bert_base().model_copy(update={"head": "none"}), VOCABULARY).eval()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        contenders = [*_ours(model), *_peers(model, Path(folder), arguments.threads, console)]
        chosen = [contender for contender in contenders if arguments.only in contender.name]
        timings, differences = _timings(chosen, arguments, console)
    table = _table(chosen, timings, differences, arguments.batch)
    print(table)
    if arguments.write:
        packages = ["torch", "transformers", *(["onnxruntime"] if any("ONNX" in c.name for c in chosen) else [])]
        notes = [
            f"{arguments.length} tokens a text, {arguments.threads} threads, {arguments.rounds} rounds; medians (smallest "
            "to largest). Ratios are to the peer in the same precision, within a round.",
            f"Command: `python benchmarks/encode.py --rounds {arguments.rounds} --length {arguments.length} "
            f"--batch {arguments.batch} --threads {arguments.threads} --write`",
            f"Machine: {machine()}",
            f"Versions: {versions(*packages)}",
        ]
        write_result("encode", title="Encoding speed, BERT-base", table=table, notes=notes)


def _ours(model: Encoder) -> list[Contender]:
    def contender(name: str, engine: Engine, precision: Precision) -> Contender:
        return Contender(name, precision, prepare_encoder(model, engine, precision).features)

    precisions: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
    return [
        *(contender(f"tripel, native {precision}", "native", precision) for precision in precisions),
        contender("tripel, PyTorch only, float32", "torch", "float32"),
        contender("tripel, PyTorch only, bfloat16", "torch", "bfloat16"),
    ]


def _peers(model: Encoder, folder: Path, threads: int, console: Console) -> list[Contender]:
    if not _installed("transformers", console):
        return []
    import transformers

    config = transformers.BertConfig(**layout.express(model.config, model.vocabulary))
    tensors = {name.removeprefix("bert."): x for name, x in _theirs(model).items()}

    def theirs(dtype: torch.dtype, attention: str = "sdpa") -> torch.nn.Module:
        config._attn_implementation = attention
        bert = transformers.BertModel(config, add_pooling_layer=model.pooler is not None)
        missing, unexpected = bert.load_state_dict(tensors, strict=False)
        assert not unexpected and all("position_ids" in name for name in missing), (missing, unexpected)
        return bert.to(dtype).eval()

    def contender(precision: str, dtype: torch.dtype) -> Contender:
        bert = theirs(dtype)
        return Contender(PEER[precision], precision, lambda ids: bert(input_ids=ids).last_hidden_state.float())

    both = [contender("float32", torch.float32), contender("bfloat16", torch.bfloat16)]
    if _installed("onnx", console) and _installed("onnxruntime", console):
        both += _onnx(theirs(torch.float32, "eager"), model, folder, threads)
    return both


def _theirs(model: Encoder) -> dict[str, Tensor]:
    return dict(layout.rename_to_theirs(model.config, dict(model.state_dict())))


def _onnx(bert: torch.nn.Module, model: Encoder, folder: Path, threads: int) -> list[Contender]:
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state  # type: ignore[no-any-return]

    ids = torch.ones(2, 16, dtype=torch.int64)
    axes = {0: "batch", 1: "length"}
    torch.onnx.export(
        Hidden(), (ids, ids), str(folder / "plain.onnx"), input_names=["ids", "mask"], output_names=["hidden"],
        dynamic_axes={"ids": axes, "mask": axes, "hidden": axes}, opset_version=17, dynamo=False,
    )  # fmt: skip
    n_heads = model.config.mixer.n_heads  # type: ignore[union-attr]
    fused = optimizer.optimize_model(
        str(folder / "plain.onnx"), model_type="bert", num_heads=n_heads, hidden_size=model.config.d_model, opt_level=0
    )
    fused.save_model_to_file(str(folder / "float32.onnx"))
    quantize_dynamic(
        str(folder / "float32.onnx"), str(folder / "int8.onnx"), weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": 1},
    )  # fmt: skip

    def contender(precision: str) -> Contender:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or it would slow the others' turns
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        path = str(folder / f"{precision}.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def read(ids: Tensor) -> Tensor:
            given = {"ids": ids.numpy(), "mask": torch.ones_like(ids).numpy()}
            return torch.from_numpy(session.run(None, given)[0])

        return Contender(ONNX[precision], precision, read)

    return [contender("float32"), contender("int8")]


Timings = dict[tuple[str, int], list[float]]


def _timings(
    contenders: list[Contender], arguments: argparse.Namespace, console: Console
) -> tuple[Timings, dict[str, float]]:
    """Seconds a text, by contender and batch, one for each round; and differences from transformers' float32."""
    random = torch.Generator().manual_seed(2)
    batches = {n: torch.randint(1000, 30000, (n, arguments.length), generator=random) for n in (1, arguments.batch)}
    hidden = {contender.name: contender.read(batches[1]).clone() for contender in contenders}
    expected = hidden.get(PEER["float32"], hidden[contenders[0].name])
    differences = {name: float((h - expected).abs().max()) for name, h in hidden.items()}
    timings: Timings = {}
    for number in range(arguments.rounds):
        for n, ids in batches.items():
            repeats = 8 if n == 1 else 1
            for contender in contenders:
                contender.read(ids[:1])  # awake, its weights nearer
                started = time.perf_counter()
                for _ in range(repeats):
                    contender.read(ids)
                timings.setdefault((contender.name, n), []).append((time.perf_counter() - started) / repeats / n)
        console.print(f"round {number + 1} of {arguments.rounds}")
    return timings, differences


def _table(contenders: list[Contender], timings: Timings, differences: dict[str, float], batch: int) -> str:
    rows = []
    for contender in contenders:
        row = [contender.name]
        for n in (1, batch):
            seconds = timings[contender.name, n]
            row.append(f"{1 / statistics.median(seconds):,.1f}")
            for peers in (PEER, ONNX):
                peer = timings.get((peers.get(contender.precision, ""), n))
                ours = contender.name.startswith("tripel")
                ratios = [b / a for a, b in zip(seconds, peer, strict=True)] if peer and ours else None
                row.append(spread(ratios, ".2f") if ratios else "")
        rows.append([*row, f"{differences[contender.name]:.1e}"])
    header = [""]
    for n in (1, batch):
        header += [f"texts/s, batch {n}", "times transformers", "times ONNX Runtime"]
    return markdown_table([*header, "largest difference"], rows)


def _installed(package: str, console: Console) -> bool:
    there = importlib.util.find_spec(package) is not None
    if not there:
        console.print(f"{package} is not installed: left out")
    return there


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--length", type=int, default=128, help="tokens of every text")
    parser.add_argument("--batch", type=int, default=32, help="texts of the batch")
    parser.add_argument("--threads", type=int, default=2, help="threads of every contender")
    parser.add_argument("--only", default="", help="only contenders whose name contains this")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/encode.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
