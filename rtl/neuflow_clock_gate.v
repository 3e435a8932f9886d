// The clock of a part, left out while the part sleeps. `awake` is low only while an edge would change
// nothing that can be seen, so whether edges are left out makes no difference to any result.
//
// FPGAs: the clock passes, and what made `awake` is dropped. With NEUFLOW_CLOCK_GATES defined, as
// simulators do for speed, edges are left out; `awake` must be steady while the clock is high. For
// silicon put the library's own gate here. NEUFLOW_PULSED_CLOCK is for sim/neuflow_sim.v alone.
module neuflow_clock_gate (
    input  wire clk,
    input  wire rst,
    input  wire awake,
    output wire gated
);
`ifdef NEUFLOW_CLOCK_GATES
`ifdef NEUFLOW_PULSED_CLOCK
    // The clock falls with the registers, before `awake` follows them.
    assign gated = clk & (awake | rst);
`else
    // A latch, so that gates may stand behind gates.
    reg open = 1'b1;

    always @(*) if (!clk) open = awake | rst;
    assign gated = clk & open;
`endif
`else
    assign gated = clk;
`endif
endmodule
