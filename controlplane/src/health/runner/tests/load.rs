//! What thousands of checks cost and how punctual they are.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};

use rustix::time::{ClockId, clock_gettime};
use shunt_api::config::{HttpCheck, Tls};

use super::*;
use crate::health::probe::tests::https;

const CHECKS: u32 = 5_000;
/// HTTPS costs a key exchange and a signature each time.
const HTTPS_CHECKS: u32 = 1_000;
const INTERVAL: Duration = Duration::from_secs(2);
const DURATION: Duration = Duration::from_secs(6);
/// Share of an interval by which a check may start late.
const LATE_MAX: f64 = if cfg!(debug_assertions) { 0.25 } else { 0.05 };

/// Accepts on all loopback addresses in a thread of its own, which ends with the process.
fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Each of so many loopback addresses is a backend. The runner has this thread to itself.
async fn measure(name: &str, count: u32, port: u16, kind: CheckKind) {
    crate::health::raise_open_files();
    let address = |i: u32| IpAddr::from(Ipv4Addr::from_bits(0x7f01_0000 + i));
    let watches = (0..count).map(|i| watch(SocketAddr::new(address(i), port), kind.clone(), INTERVAL));
    let (runner, mut events) = Runner::new(Prober::new(), 1);
    runner.set(watches.collect());
    let (started, cpu) = (Instant::now(), cpu_time());
    assert!(timeout(DURATION, runner.run()).await.is_err(), "it runs for ever");
    let share = (cpu_time() - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
    let figures = runner.figures();
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|quantile| figures.lateness(quantile) * 100.0);
    println!(
        "{name}: {count} checks every {INTERVAL:?}: {} probes in {DURATION:?}, {:.1} % of a core; \
         late by {p50:.1} % of the interval at p50, {p99:.1} % at p99, {most:.1} % at most; left out {}",
        figures.probes,
        share * 100.0,
        figures.left_out,
    );
    let down = runner.statuses().into_iter().find(|status| status.health != Health::Up);
    assert!(down.is_none(), "{down:?}");
    assert_eq!((events.len(), figures.own_faults), (count as usize, 0));
    assert!(events.recv().await.is_some_and(|event| event.transition.to == Health::Up));
    assert!(figures.lateness(0.99) <= LATE_MAX, "p99 is {p99:.1} %");
    // The first round takes a second; of the other 5 s, each check is in its place at least twice.
    assert!(figures.probes >= u64::from(count) * 3, "{}", figures.probes);
}

#[tokio::test]
#[ignore = "takes 6 s; cargo test --release -p shunt-controlplane load -- --ignored --nocapture --test-threads 1"]
async fn five_thousand_tcp_checks() {
    measure("TCP", CHECKS, serve(drop), CheckKind::Tcp { port: None }).await;
}

#[tokio::test]
#[ignore = "takes 6 s; cargo test --release -p shunt-controlplane load -- --ignored --nocapture --test-threads 1"]
async fn five_thousand_http_checks() {
    let port = serve(|mut stream| {
        let _ = stream.read(&mut [0; 1_024]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
    });
    measure("HTTP", CHECKS, port, web(None)).await;
}

#[tokio::test]
#[ignore = "takes 6 s; cargo test --release -p shunt-controlplane load -- --ignored --nocapture --test-threads 1"]
async fn a_thousand_https_checks() {
    let (sender, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            sender.send(https::serve_on("0.0.0.0:0", &["example.com"], |_| {}).await.address.port()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    measure("HTTPS", HTTPS_CHECKS, port.recv().unwrap(), web(Some(Tls { verify: false, server_name: None })))
        .await;
}

fn web(tls: Option<Tls>) -> CheckKind {
    CheckKind::Http(HttpCheck {
        port: None,
        tls,
        method: "GET".into(),
        path: "/healthz".into(),
        host: None,
        status: Vec::new(),
        text: None,
    })
}
