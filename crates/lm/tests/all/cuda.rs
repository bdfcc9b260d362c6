//! The CUDA half of the suite: the same tests on another device.

use std::io::Write;
use std::process::Command;

use lm::device::device;

use crate::oracle::DEVICE;

/// Tests that compute; the others read and write.
const COMPUTED: [&str; 6] = ["checkpoints::", "finetune::", "generate::", "lora::", "properties::", "ranks::"];

#[test]
fn what_holds_on_a_cpu_holds_on_a_gpu() {
    if let Err(problem) = device("cuda") {
        // The test harness captures the output of passing tests, but not what is written to the stream directly.
        let mut output = std::io::stderr();
        writeln!(output, "skipped: the suite on CUDA ({} and more): {problem}", COMPUTED[0]).unwrap();
        return;
    }
    let suite = std::env::current_exe().unwrap();
    // MPI's processes compute on CPUs.
    let arguments = COMPUTED.iter().copied().chain(["--skip", "mpi::", "--test-threads", "4"]);
    let status = Command::new(suite).args(arguments).env(DEVICE, "cuda").status().unwrap();
    assert!(status.success(), "on CUDA: {status}");
}
