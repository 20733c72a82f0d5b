//! Training: the synthetic world, its tokenizer, and pretraining of the embedded model.
