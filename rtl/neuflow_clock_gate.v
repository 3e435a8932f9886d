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
    reg open = 1'b1;

    // A latch, so that gates may stand behind gates.
`ifdef NEUFLOW_PULSED_CLOCK
    // The clock falls as soon as the edge has passed, before `awake` follows the registers.
    always @(*) if (clk) open = awake | rst;
`else
    always @(*) if (!clk) open = awake | rst;
`endif
    assign gated = clk & open;
`else
    assign gated = clk;
`endif
endmodule
