//! The servers that `benches/loopback` measures: `server layer|router-layer|handwritten`.
//!
//! It prints its address.

mod handwritten;
mod serving;
mod subjects;

use std::env;

use tokio::net::TcpListener;
use tower::Layer;

use crate::{
    serving::serve,
    subjects::{application, registry},
};

fn main() {
    // Cargo adds arguments of its own, such as `--bench`.
    let mut arguments = env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let Some(subject) = arguments.next() else {
        println!("server layer|router-layer|handwritten");
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(run(&subject));
}

async fn run(subject: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    match subject {
        "layer" => serve(listener, registry().layer().layer(application())).await,
        "router-layer" => serve(listener, application().layer(registry().layer())).await,
        "handwritten" => serve(listener, handwritten::Jobs::default().router()).await,
        _ => panic!("no such subject: {subject}"),
    };
}
