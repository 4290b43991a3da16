//! The end of the data path.

use tokio_util::sync::CancellationToken;

use super::*;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn drain_connection_that_finishes_is_waited_for() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    assert_echoes(&mut client);
    let draining =
        thread::spawn(move || block_on(bench.plane.drain(DEADLINE, CancellationToken::new())));
    wait_until("accepting to stop", || connect(vip, PORT).is_err());
    assert_echoes(&mut client);
    drop(client);
    let report = draining.join().unwrap();
    assert_eq!(
        report,
        crate::DrainReport {
            waited_for: report.waited_for,
            cut: 0
        }
    );
    assert!(report.waited_for >= 1);
    assert_eq!(subject.port.active.load(Relaxed), 0);
}

#[test]
fn drain_cancelled_resets_what_is_left() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    assert_echoes(&mut client);
    let second_signal = CancellationToken::new();
    second_signal.cancel();
    let report = block_on(bench.plane.drain(DEADLINE, second_signal));
    assert_eq!(
        report,
        crate::DrainReport {
            waited_for: 1,
            cut: 1
        }
    );
    assert_eq!(kind_of(read_all(client)), io::ErrorKind::ConnectionReset);
    assert_eq!(subject.port.active.load(Relaxed), 0);
}

#[test]
fn drain_deadline_passed_resets_what_is_left() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    assert_echoes(&mut client);
    let report = block_on(bench.plane.drain(Duration::ZERO, CancellationToken::new()));
    assert_eq!(report.cut, 1);
    assert_eq!(kind_of(read_all(client)), io::ErrorKind::ConnectionReset);
}

#[test]
fn plane_dropped_ends_its_workers_and_connections() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    assert_echoes(&mut client);
    drop(bench);
    assert_eq!(kind_of(read_all(client)), io::ErrorKind::ConnectionReset);
    assert_eq!(
        kind_of(connect(vip, PORT)),
        io::ErrorKind::ConnectionRefused
    );
}
