// One write port, one read port; a read takes one cycle. A word that is read and written in the same
// cycle reads as anything: no part of the grid depends on it, and the attributes say so, because
// some FPGAs would need logic around every RAM to keep a promise. Contents at power-up are
// undefined. Written so that synthesis tools infer block RAM; DISTRIBUTED asks for look-up
// tables instead.
module neuflow_ram #(
    parameter WIDTH = 16,
    parameter DEPTH = 1024,
    parameter ADDRESS = 10,
    parameter DISTRIBUTED = 0
) (
    input  wire               clk,
    input  wire               write_enable,
    input  wire [ADDRESS-1:0] write_address,
    input  wire [WIDTH-1:0]   write_data,
    input  wire               read_enable,
    input  wire [ADDRESS-1:0] read_address,
    output reg  [WIDTH-1:0]   read_data
);
    (* no_rw_check, ramstyle = "no_rw_check", ram_style = DISTRIBUTED ? "distributed" : "auto" *)
    reg [WIDTH-1:0] memory[0:DEPTH-1];

`ifndef SYNTHESIS
`ifndef VERILATOR
    // Words that nobody wrote are read and multiplied by a weight of zero, which would be unknown where
    // they are. Here they are ones, so that a simulation shows who depends on them.
    integer word;
    initial for (word = 0; word < DEPTH; word = word + 1) memory[word] = {WIDTH{1'b1}};
`endif
`endif

    always @(posedge clk) begin
        if (read_enable) read_data <= memory[read_address];
`ifdef VERILATOR
        // The same, for all that reads has read; and the simulator has nothing to put off.
        if (write_enable) memory[write_address] = write_data;
`else
        if (write_enable) memory[write_address] <= write_data;
`endif
    end
endmodule
