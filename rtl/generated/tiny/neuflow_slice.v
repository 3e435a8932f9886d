// Register slice of a stream: room for two beats, in two places that take turns; latency 1 cycle, a
// beat a cycle. Every path between the two sides is cut. A place follows the input until it holds a
// beat, so that its enable comes from registers: `o__ready`, which often comes late, reaches three.
module neuflow_slice #(
    parameter WIDTH = 16
) (
    input  wire             clk,
    input  wire             rst,
    input  wire             i__valid,
    output wire             i__ready,
    input  wire [WIDTH-1:0] i__payload,
    output reg              o__valid = 1'b0,
    input  wire             o__ready,
    output wire [WIDTH-1:0] o__payload
);
    reg [WIDTH-1:0] place0 = {WIDTH{1'b0}}, place1 = {WIDTH{1'b0}};
    reg             turn = 1'b0;  // the place whose beat leaves first
    reg             full = 1'b0;

    wire stays = o__valid & ~o__ready;
    assign i__ready = ~full;
    assign o__payload = turn ? place1 : place0;

    always @(posedge clk) begin
        if (~full & (turn == o__valid)) place0 <= i__payload;
        if (~full & (turn != o__valid)) place1 <= i__payload;
        if (rst) begin
            turn <= 1'b0;
            o__valid <= 1'b0;
            full <= 1'b0;
        end else begin
            turn <= turn ^ (o__valid & o__ready);
            o__valid <= full | stays | i__valid;
            full <= stays & (full | i__valid);
        end
    end
endmodule
