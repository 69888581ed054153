//! Recognizes timeouts among the errors of the inner service.

use std::{error::Error, iter::successors};

use tokio::time::error::Elapsed as TokioElapsed;
use tower::timeout::error::Elapsed as TowerElapsed;

/// Returns `true` if the error, or any of its sources, is a timeout of tower or tokio.
pub(super) fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |&error| error.source())
        .any(|error| error.is::<TowerElapsed>() || error.is::<TokioElapsed>())
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Wrapped(Box<dyn Error>);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the render step failed")
        }
    }

    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&*self.0)
        }
    }

    #[test]
    fn timeout_is_found_among_the_sources() {
        let timeout = Wrapped(Box::new(Wrapped(Box::new(TowerElapsed::new()))));
        assert!(is_timeout(&timeout));
        assert!(is_timeout(&TowerElapsed::new()));
        assert!(!is_timeout(&Wrapped("request timed out".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn timeout_of_tokio_is_found() {
        let never = std::future::pending::<()>();
        let elapsed = tokio::time::timeout(std::time::Duration::from_secs(1), never).await;
        assert!(is_timeout(&elapsed.expect_err("it never completes")));
    }
}
