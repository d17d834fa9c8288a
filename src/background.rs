//! Threads for what no event waits for: queries, packs, and merging files of the lake. They have the least priority there is, so that on
//! a busy machine receiving, detection and the archive go first.

use std::io;

use thread_priority::{ThreadPriority, set_current_thread_priority};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{AbortHandle, JoinError};

/// The threads. Dropping this ends what runs on them at its next step.
#[derive(Debug)]
pub(crate) struct Background {
    threads: Handle,
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

/// Ends a task with whoever waits for it.
struct Ended(AbortHandle);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Background {
    /// Starts as many threads as there are processors.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name("background")
            .on_thread_start(|| {
                // Work is done without it as well, only not as late.
                if let Err(error) = set_current_thread_priority(ThreadPriority::Min) {
                    tracing::debug!(?error, "a thread for the background keeps its priority");
                }
            })
            .enable_all()
            .build()?;
        Ok(Self { threads: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// For work that is told where to run.
    pub(crate) const fn threads(&self) -> &Handle {
        &self.threads
    }

    /// What the work gives, or that it panicked. It ends when nobody waits for it any more.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        let task = self.threads.spawn(work);
        let _ended = Ended(task.abort_handle());
        task.await
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for it would block whoever drops it, which may be a task.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The nice value of the thread that calls this (proc(5), field 19 of `stat`).
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn its_threads_come_last_and_others_do_not() {
        let background = Background::start().unwrap();
        let before = niceness();
        assert_eq!(background.run(async { niceness() }).await.unwrap(), 19);
        let blocking = async { tokio::task::spawn_blocking(niceness).await.unwrap() };
        assert_eq!(background.run(blocking).await.unwrap(), 19);
        assert_eq!(niceness(), before);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends() {
        struct Told(tokio::sync::mpsc::Sender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _nobody_listens = self.0.try_send(());
            }
        }
        let background = Background::start().unwrap();
        let (told, mut ended) = tokio::sync::mpsc::channel(1);
        let told = Told(told);
        let endless = background.run(async move {
            let _told = told;
            std::future::pending::<()>().await;
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), endless).await.is_err());
        tokio::time::timeout(Duration::from_secs(20), ended.recv()).await.unwrap();
    }
}
