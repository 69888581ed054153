//! A model of `tokio_util`'s cancellation token.

pub mod sync {
    use std::{
        future::Future,
        pin::Pin,
        sync::Arc,
        task::{Context, Poll, Waker},
    };

    use shuttle::sync::Mutex;

    #[derive(Debug, Clone, Default)]
    pub struct CancellationToken {
        state: Arc<Mutex<TokenState>>,
    }

    #[derive(Debug, Default)]
    struct TokenState {
        is_cancelled: bool,
        wakers: Vec<Waker>,
    }

    #[derive(Debug)]
    pub struct WaitForCancellationFutureOwned {
        token: CancellationToken,
    }

    impl CancellationToken {
        pub fn cancel(&self) {
            let wakers = {
                let mut state = self.state.lock().expect("no panic under the lock");
                state.is_cancelled = true;
                std::mem::take(&mut state.wakers)
            };
            for waker in wakers {
                waker.wake();
            }
        }

        pub fn is_cancelled(&self) -> bool {
            self.state
                .lock()
                .expect("no panic under the lock")
                .is_cancelled
        }

        pub fn cancelled(&self) -> WaitForCancellationFutureOwned {
            self.clone().cancelled_owned()
        }

        pub fn cancelled_owned(self) -> WaitForCancellationFutureOwned {
            WaitForCancellationFutureOwned { token: self }
        }
    }

    impl Future for WaitForCancellationFutureOwned {
        type Output = ();

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            let mut state = self.token.state.lock().expect("no panic under the lock");
            if state.is_cancelled {
                return Poll::Ready(());
            }
            state.wakers.push(cx.waker().clone());
            Poll::Pending
        }
    }
}
