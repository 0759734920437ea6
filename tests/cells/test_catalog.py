"""Named models against the papers that named them, counted on the meta device: no memory is needed."""

import pytest
import torch
from torch import nn

from tripel.models.build import build, count_parameters
from tripel.models.catalog import CATALOG, transformer_base, transformer_big, transformer_tiny
from tripel.models.config import ImageVocabulary, Vocabulary
from tripel.nn.embed import Positions
from tripel.nn.linear import FusedLinear

PAPER_VOCABULARY = 37_000  # Vaswani et al. 2017, section 5.1: about 37,000 shared tokens, English-German


# Parameters for ImageNet's 1,000 classes: of Dosovitskiy's and Touvron's checkpoints (timm's vit_*_patch*_224 and
# deit_*) and of torchvision's ResNets. The hybrid is of no paper's size exactly.
OF_PICTURES = {
    "vit_tiny": 5_717_416,
    "vit_small": 22_050_664,
    "vit_base": 86_567_656,
    "vit_large": 304_326_632,
    "vit_huge": 632_045_800,
    "vit_hybrid": 21_002_392,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


def of_pictures_on_meta(name):
    labels = tuple(map(str, range(1000)))
    with torch.device("meta"):
        return build(CATALOG[name](), ImageVocabulary(labels=labels, mean=(0.5,) * 3, std=(0.5,) * 3))


@pytest.mark.parametrize(("name", "published"), OF_PICTURES.items())
def test_the_image_classifiers_have_the_published_parameters(name, published):
    assert count_parameters(of_pictures_on_meta(name)) == published


def test_the_image_classifiers_have_the_parameters_of_hugging_faces_classes():
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

    with torch.device("meta"):
        large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
        theirs = {
            "vit_base": ViTForImageClassification(ViTConfig(num_labels=1000)),
            "vit_large": ViTForImageClassification(ViTConfig(num_labels=1000, **large)),
            "resnet50": ResNetForImageClassification(ResNetConfig(num_labels=1000)),
        }
    for name, model in theirs.items():
        assert count_parameters(model) == OF_PICTURES[name]


def on_meta(config, size=PAPER_VOCABULARY):
    with torch.device("meta"):
        return build(config, Vocabulary(source_size=size, target_size=size, pad_id=0, eos_id=1, start_id=2))


def transformer_parameters(n_layers, d_model, d_ff, vocab_size):
    """Counted from sections 3.1 to 3.4 of the paper: one shared matrix; biases on every linear map, as in its code."""
    attention = 4 * (d_model * d_model + d_model)
    feed_forward = d_model * d_ff + d_ff + d_ff * d_model + d_model
    norm = 2 * d_model
    encoder = n_layers * (attention + feed_forward + 2 * norm)
    decoder = n_layers * (2 * attention + feed_forward + 3 * norm)
    return vocab_size * d_model + encoder + decoder


@pytest.mark.parametrize(
    ("config", "sizes", "exact", "rounded"),
    [
        (transformer_base, (6, 512, 2048), 63_082_496, 65e6),
        (transformer_big, (6, 1024, 4096), 214_245_376, 213e6),
    ],
    ids=["base", "big"],
)
def test_the_2017_models_have_the_papers_parameters(config, sizes, exact, rounded):
    """Table 3 gives 65 and 213 million, rounded, for a vocabulary of "about 37,000": equal within 3 %."""
    n = count_parameters(on_meta(config()))
    assert n == transformer_parameters(*sizes, PAPER_VOCABULARY) == exact
    assert n == pytest.approx(rounded, rel=0.03)


def test_the_tiny_model_has_the_parameters_of_its_sizes():
    assert count_parameters(on_meta(transformer_tiny(), 10_000)) == transformer_parameters(4, 128, 256, 10_000)


@pytest.mark.parametrize("name", sorted(CATALOG.keys() - OF_PICTURES.keys()))
def test_a_catalog_model_is_as_deep_and_wide_as_it_says(name):
    config = CATALOG[name]()
    model = on_meta(config)
    for side, stack in config.stacks().items():
        assert len(getattr(model, side).blocks) == stack.n_layers
    weight, _ = model.head_parameters()
    assert weight.shape == (PAPER_VOCABULARY, config.d_model)
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [("gpt2", 124_439_808), ("gpt2_medium", 354_823_168), ("gpt2_large", 774_030_080), ("gpt2_xl", 1_557_611_200)],
)
def test_the_gpt2_models_have_the_published_parameters(name, published):
    """What the released checkpoints hold; Radford et al. 2019 counted otherwise in their table 2 (117M, 345M ...)."""
    assert count_parameters(on_meta(CATALOG[name](), 50_257)) == published


def test_the_gpt2_models_have_the_parameters_of_hugging_faces_class():
    from transformers import GPT2Config, GPT2LMHeadModel

    for name in ("gpt2", "gpt2_xl"):
        config = CATALOG[name]()
        with torch.device("meta"):
            theirs = GPT2LMHeadModel(
                GPT2Config(n_layer=config.n_layers, n_embd=config.d_model, n_head=config.mixer.n_heads)
            )
        assert count_parameters(theirs) == count_parameters(on_meta(config, 50_257))


def test_a_matrix_that_is_used_twice_is_owned_and_counted_once():
    tied, separate = (on_meta(transformer_tiny().model_copy(update={"tie": tie}), 1000) for tie in ("all", "none"))
    assert count_parameters(separate) - count_parameters(tied) == 2 * 1000 * 128
    names = [name for name, _ in tied.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(names)) == len(tied.state_dict())
    assert len({id(p) for p in tied.parameters()}) == len(names)


def test_a_fresh_model_is_initialised_as_documented():
    torch.manual_seed(0)
    model = build(transformer_tiny(), Vocabulary(source_size=4000, target_size=4000, pad_id=0, eos_id=1, start_id=2))
    embedding = model.target_tokens.weight
    assert embedding.std().item() == pytest.approx(128**-0.5, rel=0.02)
    assert (embedding[0] == 0).all()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert (module.bias == 0).all()
            for part in module.parts() if isinstance(module, FusedLinear) else [module.weight]:
                bound = (6 / sum(part.shape)) ** 0.5  # Glorot & Bengio 2010, equation 16
                assert bound * 0.95 < part.abs().max() <= bound
                assert part.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


class Weights(dict[str, torch.Tensor]):
    """Taps that keep what they are told under its full name."""

    def __init__(self, told=None, path=()):
        super().__init__()
        self.told, self.path = self if told is None else told, path

    def __call__(self, name, value):
        self.told[".".join((*self.path, name))] = value

    def scope(self, name):
        return Weights(self.told, (*self.path, name))


@pytest.mark.parametrize(("scheme", "alike"), [("mimetic", True), ("glorot", False), ("bert", False)])
def test_a_mimetic_translator_begins_by_looking_at_the_same_word_in_the_same_place(scheme, alike):
    torch.manual_seed(0)
    config = transformer_tiny().model_copy(update={"initialisation": scheme})
    model = build(config, Vocabulary(source_size=400, target_size=400, pad_id=0, eos_id=1, start_id=2)).eval()
    ids_BT, weights = torch.stack([torch.randperm(390)[:16] + 10 for _ in range(4)]), Weights()
    with torch.no_grad():
        model(ids_BT, ids_BT, taps=weights)
    crossing = [value for name, value in weights.items() if "cross" in name and name.endswith("weights")]
    assert len(crossing) == 4
    for weights_BHTS in crossing:
        own = weights_BHTS.diagonal(dim1=-2, dim2=-1).mean().item()
        assert (own > 1.3 / 16) == alike  # of 16 places, equally: 1 / 16


@pytest.mark.parametrize("order", ["halves", "interleaved"])
@pytest.mark.parametrize("width", [6, 8])
def test_sinusoids_are_those_of_section_3_5(order, width):
    table_TD = Positions("sinusoidal", 50, width, order=order).weight
    for position in (0, 1, 17, 49):
        for i in range(width // 2):
            angle = torch.tensor(position / 10000 ** (2 * i / width), dtype=torch.float64)
            sine, cosine = (2 * i, 2 * i + 1) if order == "interleaved" else (i, width // 2 + i)
            assert table_TD[position, sine].item() == pytest.approx(angle.sin().item(), abs=1e-6)
            assert table_TD[position, cosine].item() == pytest.approx(angle.cos().item(), abs=1e-6)


def test_positions_may_start_anywhere_and_differ_by_row():
    positions, x_BTD = Positions("sinusoidal", 20, 8, order="halves"), torch.randn(3, 4, 8)
    starts = [0, 5, 16]
    together = positions(x_BTD, torch.tensor(starts))
    for row, start in enumerate(starts):
        expected = x_BTD[row] + positions.weight[start : start + 4]
        assert torch.equal(together[row], expected)
        assert torch.equal(positions(x_BTD[row : row + 1], start)[0], expected)


BERT_VOCABULARY = Vocabulary(
    source_size=30_522, target_size=30_522, pad_id=0, eos_id=102, start_id=101, mask_id=103, labels=("no", "yes")
)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # Parameters of the checkpoints google/bert_uncased_L-*_H-*_A-* (Turc et al. 2019) and bert-{base,large}-uncased.
        ("bert_tiny", 4_385_920),
        ("bert_mini", 11_170_560),
        ("bert_small", 28_763_648),
        ("bert_base", 109_482_240),
        ("bert_large", 335_141_888),
    ],
)
def test_a_bert_has_the_parameters_of_the_published_model_of_its_name(name, published):
    """With its pooler and without a head, as transformers' BertModel counts them."""
    config = CATALOG[name]().model_copy(update={"head": "none"})
    with torch.device("meta"):
        model = build(config, BERT_VOCABULARY)
    assert count_parameters(model) == published
    d_model = config.d_model
    with torch.device("meta"):
        asked = build(config.model_copy(update={"head": "masked-token"}), BERT_VOCABULARY)
    # The pooler makes room for a transform (map and norm) and a bias for each token.
    transform = d_model * d_model + d_model + 2 * d_model
    assert count_parameters(asked) == published - (d_model * d_model + d_model) + transform + 30_522


def test_the_modern_encoder_has_the_sizes_of_its_model():
    """ModernBERT-base has 149 million parameters with its vocabulary of 50,368 (Warner et al. 2024, table 4)."""
    vocabulary = BERT_VOCABULARY.model_copy(update={"source_size": 50_368, "target_size": 50_368})
    with torch.device("meta"):
        model = build(CATALOG["bert_modern"](), vocabulary)
    assert count_parameters(model) == pytest.approx(149e6, rel=0.01)
