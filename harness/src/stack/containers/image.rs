//! Images: the public one of a database, one that the scenario names, or what `make images` made of this machine's packages.

use testcontainers::bollard::Docker;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerRequest, GenericImage};

use super::{refused, status};
use crate::stack::StackError;

/// Where the image of a database comes from unless the scenario names one.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The key of the setting, below `target.reference.containers`.
    pub key: &'static str,
    /// The public image.
    pub public: &'static str,
    /// What `make images` makes.
    pub made_here: &'static str,
}

/// An image that is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name as it was asked for, with a tag.
    name: String,
    tag: String,
    /// What the engine knows it by.
    id: String,
}

impl Image {
    /// Finds the image of a database: the one that is wanted, or whatever there is. What is on this machine already goes
    /// before what would have to be pulled.
    ///
    /// # Errors
    /// It is not here, and cannot be pulled.
    pub async fn find(docker: &Docker, source: Source, wanted: Option<&str>) -> Result<Image, StackError> {
        let here = match wanted {
            Some(name) => vec![name],
            None => vec![source.public, source.made_here],
        };
        for name in &here {
            if let Some(image) = look(docker, name).await? {
                return Ok(image);
            }
        }
        let (name, tag) = split(here[0]);
        tracing::warn!("pulling the image {name}:{tag}");
        let request: Result<ContainerRequest<GenericImage>, _> = GenericImage::new(name, tag).pull_image().await;
        let why = match request {
            Ok(_) => match look(docker, here[0]).await? {
                Some(image) => return Ok(image),
                None => "it was pulled, and is not there".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        Err(missing(source, wanted, &why))
    }

    /// Its name without the tag, and the tag.
    pub fn parts(&self) -> (&str, &str) {
        (&self.name, &self.tag)
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = self.id.strip_prefix("sha256:").unwrap_or(&self.id);
        write!(f, "{}:{} ({})", self.name, self.tag, &id[..id.len().min(12)])
    }
}

async fn look(docker: &Docker, name: &str) -> Result<Option<Image>, StackError> {
    match docker.inspect_image(name).await {
        Ok(found) => {
            let (name, tag) = split(name);
            Ok(Some(Image { name: name.to_owned(), tag: tag.to_owned(), id: found.id.unwrap_or_default() }))
        }
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(refused(format!("the Docker engine does not tell of the image {name}"))(error)),
    }
}

/// A name and its tag, which is `latest` where none is given. The colon before a port is none before a tag.
fn split(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (name, "latest"),
    }
}

fn missing(source: Source, wanted: Option<&str>, why: &str) -> StackError {
    let Source { key, public, made_here } = source;
    let setting = format!("target.reference.containers.{key}");
    // What the engine says may be long, and of several lines.
    let why: Vec<&str> = why.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let why = format!(
        "the image {} is not on this machine and cannot be pulled: {}",
        wanted.unwrap_or(public),
        why.join(" ")
    );
    let remedy = match wanted {
        Some(_) => format!(
            "{setting} names it: name one that can be had; or leave the setting out, and `make images` makes {made_here} \
             from the packages of this machine"
        ),
        None => format!(
            "`make images` makes {made_here} from the packages of this machine, which is taken then; or name another image: \
             --set {setting}=NAME:TAG"
        ),
    };
    StackError::Missing { why, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_told_from_a_port() {
        assert_eq!(split("postgres:17"), ("postgres", "17"));
        assert_eq!(split("postgres"), ("postgres", "latest"));
        assert_eq!(split("127.0.0.1:5000/shop/postgres"), ("127.0.0.1:5000/shop/postgres", "latest"));
        assert_eq!(split("127.0.0.1:5000/shop/postgres:17"), ("127.0.0.1:5000/shop/postgres", "17"));
        assert_eq!(split("postgres@sha256:0123"), ("postgres@sha256", "0123"));
    }

    #[test]
    fn an_image_that_cannot_be_had_is_named_with_the_setting_and_the_remedy() {
        let source = Source { key: "postgres", public: "postgres:17", made_here: "seckill-postgres" };
        let said = missing(source, None, "no such host\n\n").to_string();
        for part in ["postgres:17", "no such host", "`make images`", "--set target.reference.containers.postgres="] {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
        let said = missing(source, Some("mine:1"), "no such host").to_string();
        for part in ["the image mine:1 is not", "target.reference.containers.postgres names it", "`make images`"] {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    }
}
