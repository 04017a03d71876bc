//! What thousands of checks cost and how punctual they are.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};

use rustix::time::{ClockId, clock_gettime};
use shunt_api::config::{HttpCheck, Tls};
use socket2::{Domain, Socket, Type};

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
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"0.0.0.0:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    // Room for what comes while the machine is busy with something else.
    listener.listen(4_096).unwrap();
    let listener = TcpListener::from(listener);
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Each of so many loopback addresses is a backend, and found to be as `expected`. The runner has this thread
/// to itself.
async fn measure(name: &str, count: u32, port: u16, kind: CheckKind, expected: Health) {
    crate::health::raise_open_files();
    let address = |i: u32| IpAddr::from(Ipv4Addr::from_bits(0x7f01_0000 + i));
    let watches = (0..count).map(|i| {
        let mut watch = watch(SocketAddr::new(address(i), port), kind.clone(), INTERVAL);
        Arc::make_mut(&mut watch.subject.check).timeout = Duration::from_secs(1);
        watch
    });
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
    let other = runner.statuses().into_iter().find(|status| status.health != expected);
    assert!(other.is_none(), "{other:?}");
    assert_eq!((events.len(), figures.own_faults), (count as usize, 0));
    assert!(events.recv().await.is_some_and(|event| event.transition.to == expected));
    assert!(figures.lateness(0.99) <= LATE_MAX, "p99 is {p99:.1} %");
    // The first round takes an interval at most; in the other two, each check is in its place twice.
    assert!(figures.probes >= u64::from(count) * 2, "{}", figures.probes);
}

#[tokio::test]
#[ignore = "takes 6 s; cargo test --release -p shunt-controlplane load -- --ignored --nocapture --test-threads 1"]
async fn five_thousand_tcp_checks() {
    measure("TCP", CHECKS, serve(drop), CheckKind::Tcp { port: None }, Health::Up).await;
}

#[tokio::test]
#[ignore = "takes 6 s; cargo test --release -p shunt-controlplane load -- --ignored --nocapture --test-threads 1"]
async fn five_thousand_checks_that_nobody_answers() {
    // A listener whose queue is full drops what asks to join it.
    let (address, _queued) = crate::health::probe::tests::deaf_listener("0.0.0.0:0");
    measure("no answer", CHECKS, address.port(), CheckKind::Tcp { port: None }, Health::Down).await;
}

#[tokio::test]
#[ignore = "takes 6 s; cargo test --release -p shunt-controlplane load -- --ignored --nocapture --test-threads 1"]
async fn five_thousand_http_checks() {
    let port = serve(|mut stream| {
        let _ = stream.read(&mut [0; 1_024]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
    });
    measure("HTTP", CHECKS, port, web(None), Health::Up).await;
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
    let tls = Tls { verify: false, server_name: None };
    measure("HTTPS", HTTPS_CHECKS, port.recv().unwrap(), web(Some(tls)), Health::Up).await;
}

fn web(tls: Option<Tls>) -> CheckKind {
    CheckKind::Http(HttpCheck {
        port: None,
        tls,
        method: "GET".into(),
        path: "/healthz".into(),
        host: None,
        status: vec![200..=299],
        text: None,
    })
}
