//! The runner against real listeners on the loopback addresses.

mod load;

use std::net::SocketAddr;

use shunt_api::config::{Check, CheckKind, Via};
use shunt_api::snapshot::Mode;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::health::machine::Health;

/// Until a test gives up.
const PATIENCE: Duration = Duration::from_secs(10);

fn watch(destination: SocketAddr, kind: CheckKind, interval: Duration) -> Watch {
    let check = Check { kind, interval, timeout: PATIENCE, rise: 2, fall: 3, via: Via::Direct };
    let subject = Subject { backend: destination.ip(), mode: Mode::Dr, destination, check: Arc::new(check) };
    Watch { subject, way: None }
}

fn tcp(destination: SocketAddr) -> Watch {
    watch(destination, CheckKind::Tcp { port: None }, Duration::from_millis(40))
}

async fn next(events: &mut UnboundedReceiver<HealthEvent>) -> (Health, String) {
    let event = timeout(PATIENCE, events.recv()).await.expect("an event in time").expect("the runner lives");
    (event.transition.to, event.transition.reason)
}

#[tokio::test]
async fn a_backend_that_dies_and_returns() {
    let (runner, mut events) = Runner::new(Prober::new(), 1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let scenario = async {
        runner.set(vec![tcp(address)]);
        assert_eq!(next(&mut events).await, (Health::Up, "the first check succeeded".into()));
        drop(listener);
        let down = (Health::Down, "3 checks in a row failed: connection refused".into());
        assert_eq!(next(&mut events).await, down);
        let _listener = TcpListener::bind(address).await.unwrap();
        assert_eq!(next(&mut events).await, (Health::Up, "2 checks in a row succeeded".into()));
    };
    tokio::select! {
        () = scenario => {}
        () = runner.run() => unreachable!("it runs for ever"),
    }
    let status = &runner.statuses()[0];
    assert_eq!(status.health, Health::Up);
    assert!(status.successes >= 3 && status.failures >= 3, "{status:?}");
    assert!(status.last_latency.is_some_and(|latency| latency < PATIENCE), "{status:?}");
}

#[tokio::test]
async fn checks_come_and_go_while_it_runs() {
    let (runner, mut events) = Runner::new(Prober::new(), 1);
    let [first, second] = [TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0")];
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    let scenario = async {
        tokio::task::yield_now().await;
        runner.set(vec![tcp(first.local_addr().unwrap())]);
        next(&mut events).await;
        runner.set(vec![tcp(first.local_addr().unwrap()), tcp(second.local_addr().unwrap())]);
        let event = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        assert_eq!(event.watch.subject.destination, second.local_addr().unwrap());
        runner.set(vec![tcp(second.local_addr().unwrap())]);
        drop(first);
        drop(second);
        assert_eq!(next(&mut events).await.0, Health::Down);
        assert_eq!(runner.statuses().len(), 1);
    };
    tokio::select! {
        () = scenario => {}
        () = runner.run() => unreachable!("it runs for ever"),
    }
    assert!(events.try_recv().is_err(), "nothing of what was removed");
}
