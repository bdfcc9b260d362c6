//! The CUDA half of the suite: the same tests, told of another device.

use std::io::Write;
use std::process::Command;

use lm::device::device;

use crate::oracle::DEVICE;

/// Tests of what is computed; the others are of what is read and written.
const COMPUTED: [&str; 6] = ["checkpoints::", "finetune::", "generate::", "lora::", "properties::", "ranks::"];

#[test]
fn what_holds_on_a_cpu_holds_on_a_gpu() {
    if let Err(problem) = device("cuda") {
        // Past the test harness, which keeps to itself what a test prints that passes.
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
