"""Eole's part in train_translation.py, which starts it: Eole's own model, loss, optimizer and trainer on given batches.

It runs in the Python that has Eole, which need not be the one that has Tripel: nothing of Tripel is imported here.
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import torch
from turns import Turns

IGNORE = -100  # a target that is not predicted, in the batches
PAD = "<pad>"
# What the table must say beside Eole's figures; read from the source of Eole 0.6.4.
DIFFERENCES = (
    "Eole: its decoder has only the pre-norm form (the encoder is post-norm, as everyone's here), hence one more layer "
    "norm. Its gradient is divided by tokens less sentences, not by tokens. Dropout acts inside its feed-forward parts "
    "too. On a CPU it does not use the fused attention kernel. Its "
    "AdamW is PyTorch's without foreach and fused. Its bfloat16 is its own mixed precision: autocast and a gradient "
    "scaler. Its loop counts right guesses in every batch; its logging of attention entropy is turned off."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("batches", help="what train_translation.py prepared")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], required=True)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    stored = torch.load(args.batches, weights_only=True)
    torch.manual_seed(stored["settings"]["seed"])
    vocabulary = _Vocabulary(stored["vocabulary"])
    turns = Turns([convert(batch, vocabulary.pad_id) for batch in stored["batches"]])
    train(configure(stored["model"], stored["settings"], args.precision), vocabulary, turns)


def configure(model: dict[str, Any], settings: dict[str, Any], precision: str) -> Any:
    """Eole's TrainConfig for the sizes of an EncoderDecoderConfig with tied embeddings, as near as Eole comes to it."""
    from eole.config.run import TrainConfig

    return TrainConfig(
        src_vocab="dummy",  # Eole's own word for: there are no files
        tgt_vocab="dummy",
        share_vocab=True,
        data={},
        model={
            "architecture": "transformer",
            "hidden_size": model["d_model"],
            "transformer_ff": model["d_ff"],
            "heads": model["encoder"]["mixer"]["n_heads"],
            "norm_eps": model["norm_eps"],
            "add_qkvbias": True,
            "add_final_linear_bias": True,
            "add_ffnbias": True,
            "generator_bias": False,
            "share_embeddings": True,
            "share_decoder_embeddings": True,
            "embeddings": {"word_vec_size": model["d_model"], "position_encoding_type": "SinusoidalInterleaved"},
            "encoder": {
                "layers": model["encoder"]["n_layers"],
                "encoder_layer_style": "postnorm",
                "final_encoder_layer_norm": False,
            },
            "decoder": {"layers": model["decoder"]["n_layers"]},
        },
        training={
            "compute_dtype": "bf16" if precision == "bfloat16" else "fp32",
            "param_init_method": "xavier_uniform",
            "dropout": [model["dropout"]],
            "attention_dropout": [0.0],
            "label_smoothing": settings["smoothing"],
            "normalization": "tokens",
            "max_grad_norm": 1.0,
            "optim": "adamw",
            "learning_rate": settings["rate"],
            "adam_beta2": 0.98,
            "adam_eps": 1e-9,
            "log_attention_entropy": False,
        },
    )


class _Vocabulary:
    """As much of a vocabulary as training on ids asks for: its size and where padding stands."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self.size, self.pad_id = vocabulary["target_size"], vocabulary["pad_id"]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, token: str) -> int:
        if token != PAD:
            raise KeyError(token)
        return self.pad_id


def convert(batch: dict[str, Any], pad_id: int) -> SimpleNamespace:
    """A stored batch as Eole has it: one target with its begin and end, which Eole shifts itself."""
    inputs, targets_BT = batch["inputs"], batch["targets_BT"]
    source_BS, valid_BS = inputs["source_BS"], inputs["source_valid_BS"]
    B, S = source_BS.shape
    known_BT = targets_BT.masked_fill(targets_BT == IGNORE, pad_id)
    eole = {
        "src": source_BS,
        "srclen": torch.full((B,), S) if valid_BS is None else valid_BS.sum(1),
        "tgt": torch.cat([inputs["target_BT"][:, :1], known_BT], dim=1),
        "images": None,
        "prefix_len": None,
        "cid": ["train"] * B,
        "cid_line_number": list(batch["rows"]),
    }
    return SimpleNamespace(eole=eole, tokens=batch["tokens"])


def train(config: Any, vocabulary: _Vocabulary, turns: Turns) -> None:
    """What Eole's `train_single.main` does after it has read its data."""
    from eole.models.model import get_model_class
    from eole.trainer import build_trainer
    from eole.utils.optimizers import Optimizer

    vocabularies = {"src": vocabulary, "tgt": vocabulary, "specials": {"pad_token": PAD}}
    model = get_model_class(config.model).for_training(config.model, vocabularies, config.training, device_id=-1)
    turns.parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    trainer = build_trainer(config, -1, model, vocabularies, Optimizer.from_config(model, config))
    trainer.report_manager = _Report(turns)
    trainer.train(((batch.eole, 0) for (batch,) in turns), train_steps=0, save_checkpoint_steps=0, valid_steps=10**9)


class _Report:
    """Stands in for Eole's report manager, which hears of every update."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.start_time = 0.0  # set by the trainer

    def report_training(
        self, step: int, num_steps: int, learning_rate: float, patience: Any, report_stats: Any, multigpu: bool = False
    ) -> Any:
        self.turns.loss = report_stats.xent()
        return type(report_stats)()


if __name__ == "__main__":
    main()
