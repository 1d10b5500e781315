//! Where backups go, and how they are sealed: a folder, an S3 bucket, and age.

mod age;
mod directory;
mod s3;

pub use self::{
    age::{AgeError, AgeOpener, AgeSealer, create_identity},
    directory::DirectoryStore,
    s3::{S3Settings, S3Store},
};
