// An attention model that is one stack, decoder or encoder, and how its weights are given to the library.
#pragma once
#include "maps.h"

enum Wiring { POST = 0, PRE = 1, NONE = 2 };

struct Norm {
    const float *gain = nullptr, *bias = nullptr;  // no gain: no norm; no bias: the root mean square alone
    float eps = 0;
};

struct Layer {
    Map qkv, output, gate, inner, outer;  // gate only where the activation is SWIGLU
    Norm query_norm, key_norm, norm, outer_norm;
};

// Numbers as tripel/decode/native/stack.py writes them, then what is read from them.
struct Shape {
    int64_t d, d_ff, n_layers, heads, kv_heads, window, rotary, wiring, activation, precision, causal;
};

struct Model {
    Shape shape;
    float eps, qk_eps;
    double rotary_base;
    Arena arena;
    std::vector<Map> maps;              // in the order in which they are given
    std::vector<const float*> vectors;  // the same; nullptr for what the model has not
    std::vector<Layer> layers;
    const float *tokens, *positions, *types;
    Norm embedding_norm, final_norm;
    Map head;  // of a decoder
    int64_t E() const { return shape.d / shape.heads; }
    int64_t columns() const { return head.panels * PANEL; }
};

extern "C" {

Model* tripel_stack_model(const int64_t* numbers, const double* reals) {
    Model* model = new Model{};
    std::memcpy(&model->shape, numbers, sizeof(Shape));
    model->eps = static_cast<float>(reals[0]);
    model->qk_eps = static_cast<float>(reals[1]);
    model->rotary_base = reals[2];
    return model;
}

void tripel_stack_free_model(Model* model) { delete model; }

// The next map of the model: weight [n_columns][depth], bias [n_columns] or null; columns filled up get the bias `fill`.
void tripel_stack_map(Model* model, const float* weight, const float* bias, int64_t n_columns, int64_t depth, float fill) {
    const Precision precision = static_cast<Precision>(model->shape.precision);
    model->maps.push_back(pack(weight, bias, n_columns, depth, precision, fill, model->arena));
}

// The next vector or table, n numbers; null for one that the model has not.
void tripel_stack_vector(Model* model, const float* numbers, int64_t n) {
    float* copy = numbers == nullptr ? nullptr : model->arena.take<float>(n);
    if (copy != nullptr) std::memcpy(copy, numbers, n * sizeof(float));
    model->vectors.push_back(copy);
}

// All maps and vectors have been given, in the order of tripel/decode/native/stack.py.
void tripel_stack_ready(Model* model) {
    const Map* map = model->maps.data();
    const float* const* vector = model->vectors.data();
    auto norm = [&](float eps) {
        const float* gain = *vector++;
        return Norm{gain, *vector++, eps};
    };
    model->tokens = *vector++;
    model->positions = *vector++;
    model->types = *vector++;
    model->embedding_norm = norm(model->eps);
    for (int64_t i = 0; i < model->shape.n_layers; i++) {
        Layer layer{};
        layer.qkv = *map++;
        layer.output = *map++;
        layer.query_norm = norm(model->qk_eps);
        layer.key_norm = norm(model->qk_eps);
        layer.norm = norm(model->eps);
        layer.outer_norm = norm(model->eps);
        if (model->shape.d_ff > 0) {
            if (model->shape.activation == SWIGLU) layer.gate = *map++;
            layer.inner = *map++;
            layer.outer = *map++;
        }
        model->layers.push_back(layer);
    }
    model->final_norm = norm(model->eps);
    if (map != model->maps.data() + model->maps.size()) model->head = *map;
}

}  // extern "C"
