//! The store in JetStream, compiled as a package that has only the public API of the crate.
//!
//! It shows that a store outside the crate can do what this one does. `build.rs` copies
//! `src/store/nats`, unchanged except for its `use` lines.

include!(concat!(env!("OUT_DIR"), "/store.rs"));

#[cfg(test)]
mod tests {
    use tower_accepted::{Jobs, Worker, store::Queue};

    use super::nats::NatsStore;

    fn is_queue<S: Queue>() {}

    #[test]
    fn store_outside_the_crate_is_a_queue() {
        is_queue::<NatsStore>();
        let _build = |store: NatsStore| -> Jobs<NatsStore> { Jobs::builder().store(store).build() };
        let _worker = |worker: Worker<(), (), NatsStore>| worker.concurrency(1);
    }
}
