//! Objects in a bucket of an S3 store.
//!
//! A key that exists is not written again: the store is asked to write only if there is none
//! (`If-None-Match: *`). One that does not know this is asked for the object first, and a rare
//! race of two writers then writes the same bytes twice.
//!
//! The object of the key `a/b` is named `a/b!` in the bucket. Stores on a file system cannot keep
//! `a` beside `a/b`; with the mark no name is a folder of another. It sorts before all that a key
//! may have, so names stand in the order of the keys.

use super::keys::{check_key, check_prefix};
use super::{ObjectEntry, Objects, ObjectsError};
use async_trait::async_trait;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use aws_sdk_s3::{Client, Config};
use bytes::Bytes;
use std::error::Error;
use std::fmt::{self, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a write that collides with another of the same key is repeated.
const COLLISIONS: usize = 5;

/// What is put after a key.
const MARK: char = '!';

/// Keys a listing gives at once.
const LISTED: usize = 1_000;

/// Where the bucket is.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Config {
    /// `http://host:port` or `https://host:port`; none for Amazon's own.
    pub endpoint: Option<String>,
    /// Region, `us-east-1` where the store knows none.
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
    /// Whether the bucket is named in the path, not in the host: so by most stores but Amazon's.
    pub path_style: bool,
}

/// The keys are left out.
impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("bucket", &self.bucket)
            .field("path_style", &self.path_style)
            .finish()
    }
}

/// Objects in a bucket.
pub struct S3Objects {
    client: Client,
    config: S3Config,
    /// Whether the store knows `If-None-Match`, as far as was seen.
    conditional: AtomicBool,
}

impl S3Objects {
    /// Prepares the client; nothing is sent yet.
    pub fn new(config: S3Config) -> Self {
        let credentials = Credentials::new(
            &config.access_key,
            &config.secret_key,
            None,
            None,
            "configuration",
        );
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(3))
            .operation_attempt_timeout(Duration::from_secs(30))
            .operation_timeout(Duration::from_secs(60))
            .build();
        let mut builder = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .credentials_provider(credentials)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .force_path_style(config.path_style);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Self {
            client: Client::from_conf(builder.build()),
            config,
            conditional: AtomicBool::new(true),
        }
    }

    /// An object's name in the bucket.
    fn name(key: &str) -> String {
        format!("{key}{MARK}")
    }

    fn place(&self) -> String {
        let endpoint = self.config.endpoint.as_deref().unwrap_or("amazon s3");
        format!("bucket {} at {endpoint}", self.config.bucket)
    }

    /// What an error means, `key` being what was asked for.
    fn explain<E>(&self, key: &str, error: SdkError<E>) -> ObjectsError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let place = self.place();
        let status = status_of(&error);
        let code = error.code().unwrap_or_default().to_owned();
        if matches!(error, SdkError::ConstructionFailure(_)) {
            return ObjectsError::Refused(format!(
                "{place}: {}, check the configuration",
                chain(&error)
            ));
        }
        let Some(status) = status else {
            return ObjectsError::Unavailable(format!(
                "{place} cannot be reached: {}",
                chain(&error)
            ));
        };
        let message = match error.message() {
            Some(message) => format!("status {status} {code}: {message}"),
            None => format!("status {status} {code}"),
        };
        match (status, code.as_str()) {
            (_, "NoSuchBucket") => {
                ObjectsError::Refused(format!("{place} does not exist, run setup"))
            }
            (507, _) | (_, "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage") => {
                ObjectsError::Full(format!("{place}: {message}"))
            }
            (404, _) if !key.is_empty() => ObjectsError::NotFound(key.to_owned()),
            (401 | 403, _) => ObjectsError::Refused(format!(
                "{place}: {message}, check the access key and its rights"
            )),
            (408 | 429 | 500.., _) => ObjectsError::Unavailable(format!("{place}: {message}")),
            _ => ObjectsError::Refused(format!(
                "{place}: {message}, check endpoint, region and bucket"
            )),
        }
    }

    async fn exists(&self, key: &str) -> Result<bool, ObjectsError> {
        match self
            .client
            .head_object()
            .bucket(&self.config.bucket)
            .key(Self::name(key))
            .send()
            .await
        {
            Ok(_) => Ok(true),
            Err(error) => match self.explain(key, error) {
                ObjectsError::NotFound(_) => Ok(false),
                other => Err(other),
            },
        }
    }

    /// Writes, only if there is none when `conditional`. Whether the condition is known to the
    /// store is told by the answer: `None` when it is not.
    async fn write(
        &self,
        key: &str,
        bytes: &Bytes,
        conditional: bool,
    ) -> Result<Option<()>, ObjectsError> {
        for _ in 0..COLLISIONS {
            let put = self
                .client
                .put_object()
                .bucket(&self.config.bucket)
                .key(Self::name(key))
                .body(ByteStream::from(bytes.clone()));
            let put = if conditional {
                put.if_none_match("*")
            } else {
                put
            };
            let Err(error) = put.send().await else {
                return Ok(Some(()));
            };
            match status_of(&error) {
                Some(412) if conditional => return Ok(Some(())),
                Some(501) if conditional => return Ok(None),
                Some(409) => {}
                _ => return Err(self.explain(key, error)),
            }
        }
        Err(ObjectsError::Unavailable(format!(
            "{}: others write {key} all the time",
            self.place()
        )))
    }
}

fn status_of<E>(error: &SdkError<E>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}

/// An error and what is behind it, without the types.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        source = cause.source();
    }
    text
}

#[async_trait]
impl Objects for S3Objects {
    async fn prepare(&self) -> Result<(), ObjectsError> {
        let bucket = &self.config.bucket;
        let Err(error) = self.client.head_bucket().bucket(bucket).send().await else {
            return Ok(());
        };
        if status_of(&error) != Some(404) {
            return Err(self.explain("", error));
        }
        let mut create = self.client.create_bucket().bucket(bucket);
        if self.config.region != "us-east-1" {
            let region = BucketLocationConstraint::from(self.config.region.as_str());
            create = create.create_bucket_configuration(
                CreateBucketConfiguration::builder()
                    .location_constraint(region)
                    .build(),
            );
        }
        match create.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
            Err(error) => Err(self.explain("", error)),
        }
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectsError> {
        check_key(key)?;
        if self.conditional.load(Ordering::Relaxed) {
            if self.write(key, &bytes, true).await?.is_some() {
                return Ok(());
            }
            tracing::info!(
                "{} does not know If-None-Match, it is asked for an object before it is written",
                self.place()
            );
            self.conditional.store(false, Ordering::Relaxed);
        }
        if self.exists(key).await? {
            return Ok(());
        }
        self.write(key, &bytes, false).await.map(|_| ())
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectsError> {
        check_key(key)?;
        if range.as_ref().is_some_and(Range::is_empty) {
            return match self.exists(key).await? {
                true => Ok(Bytes::new()),
                false => Err(ObjectsError::NotFound(key.to_owned())),
            };
        }
        let mut get = self
            .client
            .get_object()
            .bucket(&self.config.bucket)
            .key(Self::name(key));
        if let Some(range) = &range {
            get = get.range(format!("bytes={}-{}", range.start, range.end - 1));
        }
        let answer = match get.send().await {
            Ok(answer) => answer,
            // The range begins beyond the end.
            Err(error) if range.is_some() && status_of(&error) == Some(416) => {
                return Ok(Bytes::new());
            }
            Err(error) => return Err(self.explain(key, error)),
        };
        let whole = answer.content_range.is_none();
        let body = answer.body.collect().await;
        let body = body.map_err(|error| {
            ObjectsError::Unavailable(format!("{}: {}", self.place(), chain(&error)))
        })?;
        let bytes = body.into_bytes();
        match range {
            // A store may not understand a range, and then gives everything.
            Some(range) if whole => {
                let within = |offset: u64| {
                    usize::try_from(offset)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len())
                };
                Ok(bytes.slice(within(range.start)..within(range.end)))
            }
            _ => Ok(bytes),
        }
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectEntry>, ObjectsError> {
        check_prefix(prefix)?;
        let mut entries: Vec<ObjectEntry> = Vec::new();
        let mut after = after.filter(|after| !after.is_empty()).map(Self::name);
        while entries.len() < limit {
            let wanted = (limit - entries.len()).min(LISTED);
            let list = self
                .client
                .list_objects_v2()
                .bucket(&self.config.bucket)
                .prefix(prefix)
                .set_start_after(after.clone());
            let list = list.max_keys(i32::try_from(wanted).unwrap_or(i32::MAX));
            let answer = list.send().await.map_err(|error| self.explain("", error))?;
            let more = answer.is_truncated().unwrap_or(false);
            let mut last = None;
            for object in answer.contents.unwrap_or_default() {
                let size = u64::try_from(object.size.unwrap_or(0)).unwrap_or(0);
                let Some(name) = object.key else { continue };
                // Other names are not ours.
                if let Some(key) = name.strip_suffix(MARK) {
                    entries.push(ObjectEntry {
                        key: key.to_owned(),
                        size,
                    });
                }
                last = Some(name);
            }
            if !more || last.is_none() || last == after {
                break;
            }
            after = last;
        }
        Ok(entries)
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectsError> {
        check_key(key)?;
        match self
            .client
            .delete_object()
            .bucket(&self.config.bucket)
            .key(Self::name(key))
            .send()
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => match self.explain(key, error) {
                ObjectsError::NotFound(_) => Ok(()),
                other => Err(other),
            },
        }
    }
}
