// Register slice of a stream: room for two beats, latency 1 cycle, a beat a cycle. Every path between
// the two sides is cut: `i__ready` and all of `o` come from registers. The spare place follows the
// input until it holds a beat, so that its enable is a register too.
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
    output reg  [WIDTH-1:0] o__payload = {WIDTH{1'b0}}
);
    reg             spare_valid = 1'b0;
    reg [WIDTH-1:0] spare = {WIDTH{1'b0}};

    wire free = ~o__valid | o__ready;
    assign i__ready = ~spare_valid;

    always @(posedge clk) begin
        if (free) o__payload <= spare_valid ? spare : i__payload;
        if (~spare_valid) spare <= i__payload;
        if (rst) begin
            o__valid <= 1'b0;
            spare_valid <= 1'b0;
        end else begin
            if (free) o__valid <= spare_valid | i__valid;
            spare_valid <= ~free & (spare_valid | i__valid);
        end
    end
endmodule
