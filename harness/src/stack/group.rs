//! Several components that play one role together: what is done to the role is done to each of them.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};

use super::{Component, StackError};

/// The components of one role.
#[derive(Debug)]
pub struct Group {
    role: &'static str,
    members: Vec<Box<dyn Component>>,
}

impl Group {
    /// A role that these play together.
    pub fn new(role: &'static str, members: Vec<Box<dyn Component>>) -> Group {
        Group { role, members }
    }

    /// Does something to all of them at once; the first error counts, but nobody is left out because of it.
    async fn all<'a, R>(
        &'a self,
        each: impl Fn(&'a dyn Component) -> BoxFuture<'a, Result<R, StackError>>,
    ) -> Result<Vec<R>, StackError> {
        join_all(self.members.iter().map(|member| each(member.as_ref()))).await.into_iter().collect()
    }
}

impl Component for Group {
    fn role(&self) -> &'static str {
        self.role
    }
    fn pids(&self) -> Vec<i32> {
        self.members.iter().flat_map(|member| member.pids()).collect()
    }
    fn ended(&self) -> Option<String> {
        self.members.iter().find_map(|member| Some(format!("{}: {}", member.role(), member.ended()?)))
    }
    fn start(&self) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(async {
            // Only those that are not there: one of them may have been killed alone, and started again by whoever did it.
            for member in self.members.iter().filter(|member| member.pids().is_empty()) {
                member.start().await?;
            }
            Ok(())
        })
    }
    fn ready(&self, limit: Duration) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(async move { self.all(|member| member.ready(limit)).await.map(drop) })
    }
    fn kill(&self) -> BoxFuture<'_, Result<usize, StackError>> {
        Box::pin(async { Ok(self.all(|member| member.kill()).await?.into_iter().sum()) })
    }
    fn pause(&self, paused: bool) -> BoxFuture<'_, Result<usize, StackError>> {
        Box::pin(async move { Ok(self.all(|member| member.pause(paused)).await?.into_iter().sum()) })
    }
    fn stop(&self, limit: Duration) -> BoxFuture<'_, Result<bool, StackError>> {
        Box::pin(async move { Ok(self.all(|member| member.stop(limit)).await?.into_iter().all(|gone| gone)) })
    }
    fn members(&self) -> &[Box<dyn Component>] {
        &self.members
    }
}
