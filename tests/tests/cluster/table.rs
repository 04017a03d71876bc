//! Many short cases of one scenario: each in a namespace of its own, and all of them are tried.

use std::time::Instant;

use shunt_tests::error::{Error, Result};

use crate::cluster::Cluster;
use crate::space::{Space, in_space};

/// What a case shows, and the case.
pub type Case = (&'static str, fn(&Space) -> Result<()>);

/// Tries all cases; an error names those that failed.
pub fn run(cluster: &Cluster, name: &str, cases: &[Case]) -> Result<()> {
    let mut failed = 0;
    for (about, case) in cases {
        let begin = Instant::now();
        let outcome = in_space(cluster, name, case);
        let seconds = begin.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("   {about:<78} ok {seconds:>5.1} s"),
            Err(error) => {
                failed += 1;
                println!("   {about:<78} FAILED {seconds:.1} s\n      {error}");
            }
        }
    }
    if failed == 0 { Ok(()) } else { Err(Error::Wrong(format!("{failed} of {} cases failed", cases.len()))) }
}
