//! The databases of the reference service as containers.

use std::path::Path;

use super::Yard;
use super::container::{Container, Spec};
use super::image::{Image, Source};
use crate::scenario::Images;
use crate::stack::database::Database;
use crate::stack::{StackError, postgres};

/// Where the image of Postgres comes from.
const POSTGRES: Source = Source { key: "postgres", public: "postgres:17", made_here: "seckill-postgres" };

/// Starts a Postgres with the settings of the embedded one, on a volume that lives as long as the container. It may not be
/// ready yet. Returns it with a line about what it is.
///
/// # Errors
/// There is no image of it, or the engine refuses.
pub async fn postgres(yard: &Yard, images: &Images, logs: &Path) -> Result<(Container, String), StackError> {
    let image =
        Image::find(&yard.docker, POSTGRES, images.postgres.as_ref().map(|name| name.get_ref().as_str())).await?;
    let mut command = vec!["postgres".to_owned(), "-c".to_owned(), "listen_addresses=*".to_owned()];
    command.extend(postgres::settings(&postgres::log_sizes(None)));
    let spec = Spec {
        role: "postgres",
        number: 1,
        port: postgres::PORT,
        environment: vec![
            // As private as the embedded one: whoever is on this machine may ask it, and nobody else can.
            ("POSTGRES_HOST_AUTH_METHOD", "trust".to_owned()),
            ("POSTGRES_INITDB_ARGS", "-E UTF8 --locale=C --no-sync".to_owned()),
        ],
        command,
        // An immediate shutdown: the cluster is thrown away, so a last checkpoint would be for nobody.
        farewell: "SIGQUIT",
        probe: |address| {
            Box::pin(async move {
                let answered = Database::at(address).value("SELECT 1").await;
                answered.map(drop).map_err(|error| error.to_string())
            })
        },
        database: Some(Database::at),
        log: logs.join("postgres.log"),
    };
    let what = format!("postgres ran in a container of the image {image}");
    Ok((Container::run(yard, &image, spec).await?, what))
}
