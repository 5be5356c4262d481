//! A component is cut off from its network for a while.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::{ActiveFault, Fault, Hit, Hold, Place};
use crate::scenario::About;
use crate::stack::{Stack, StackError};

/// A component with a network of its own loses it, as when a cable is pulled out; healing plugs it in again. Its processes go on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disconnect {
    /// The role, which has to run in a container: `postgres`.
    #[schemars(with = "String")]
    pub role: Spanned<String>,
}

#[derive(Debug)]
struct Disconnected {
    role: String,
}

impl Fault for Disconnect {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn needs() -> String {
        "a container: --stack containers".to_owned()
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Network]
    }

    fn detail(&self) -> String {
        "cut off from its network, then connected again".into()
    }

    fn check(&self, about: &mut About<'_>) {
        about.role(&self.role);
        about.networked(&self.role);
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let role = self.role.get_ref().clone();
            stack.component(&role)?.disconnect(true).await?;
            let disconnected: Box<dyn ActiveFault> = Box::new(Disconnected { role });
            Ok(disconnected)
        })
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(async move { stack.component(self.role.get_ref())?.disconnect(false).await })
    }
}

impl ActiveFault for Disconnected {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            stack.component(&self.role)?.disconnect(false).await?;
            Ok(Hit::new(1, "1 network left and joined again"))
        })
    }
}
