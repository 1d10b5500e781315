//! (preprocess)
