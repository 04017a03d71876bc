//! A backend of the tests and of the demo; see `shunt_tests::echo`.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use shunt_tests::echo;

/// Answers TCP and UDP with its own name and the client address it saw.
///
/// GET / answers JSON; GET /stream?bytes=N&rate=R streams a known pattern at R bytes a second; PUT
/// /upload?bytes=N takes that pattern and answers whether it was right. Datagrams are answered with the JSON
/// of GET /, those of 1000 bytes and more with themselves.
#[derive(Parser)]
struct Arguments {
    /// Name to answer with.
    #[arg(long)]
    name: String,
    /// Address and port to serve, TCP and UDP; may be given more than once.
    #[arg(long = "listen", required = true)]
    addresses: Vec<SocketAddr>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(echo::serve(&arguments.name, &arguments.addresses))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shunt-echo: cannot serve {:?}: {error}", arguments.addresses);
            ExitCode::FAILURE
        }
    }
}
