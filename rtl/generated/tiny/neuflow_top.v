// neuflow: the port names that users of AXI expect, around the exported grid (module neuflow_core).
//
// aclk      the only clock.
// aresetn   synchronous reset, active low.
// m_axi_*   AXI4 master to memory. Full-width INCR bursts within 4 KB; ID = number of the DMA port.
// s_axi_*   AXI4-Lite slave, 32 bit: registers, see registers.json.
// irq       level: the run is over and the interrupt is enabled.
// activity  what each column does in this cycle, 32 bits a column (layout.ACTIVITY), a cycle late; for traces, may stay open.
//
// The parameters must be those of the grid that neuflow_core was exported for.
module neuflow_top #(
    parameter COLUMNS = 2,
    parameter BUS_WORDS = 4,
    parameter DATA_BITS = 16 * BUS_WORDS,
    parameter ID_BITS = $clog2(3 * COLUMNS + 1)
) (
    input  wire                     aclk,
    input  wire                     aresetn,

    // AXI4 master: read address and data
    output wire                     m_axi_arvalid,
    input  wire                     m_axi_arready,
    output wire [31:0]              m_axi_araddr,
    output wire [ID_BITS-1:0]       m_axi_arid,
    output wire [7:0]               m_axi_arlen,
    output wire [2:0]               m_axi_arsize,
    output wire [1:0]               m_axi_arburst,
    output wire                     m_axi_arlock,
    output wire [3:0]               m_axi_arcache,
    output wire [2:0]               m_axi_arprot,
    output wire [3:0]               m_axi_arqos,
    input  wire                     m_axi_rvalid,
    output wire                     m_axi_rready,
    input  wire [DATA_BITS-1:0]     m_axi_rdata,
    input  wire [ID_BITS-1:0]       m_axi_rid,
    input  wire [1:0]               m_axi_rresp,
    input  wire                     m_axi_rlast,

    // AXI4 master: write address, data and response
    output wire                     m_axi_awvalid,
    input  wire                     m_axi_awready,
    output wire [31:0]              m_axi_awaddr,
    output wire [ID_BITS-1:0]       m_axi_awid,
    output wire [7:0]               m_axi_awlen,
    output wire [2:0]               m_axi_awsize,
    output wire [1:0]               m_axi_awburst,
    output wire                     m_axi_awlock,
    output wire [3:0]               m_axi_awcache,
    output wire [2:0]               m_axi_awprot,
    output wire [3:0]               m_axi_awqos,
    output wire                     m_axi_wvalid,
    input  wire                     m_axi_wready,
    output wire [DATA_BITS-1:0]     m_axi_wdata,
    output wire [DATA_BITS/8-1:0]   m_axi_wstrb,
    output wire                     m_axi_wlast,
    input  wire                     m_axi_bvalid,
    output wire                     m_axi_bready,
    input  wire [ID_BITS-1:0]       m_axi_bid,
    input  wire [1:0]               m_axi_bresp,

    // AXI4-Lite slave
    input  wire                     s_axi_arvalid,
    output wire                     s_axi_arready,
    input  wire [11:0]              s_axi_araddr,
    input  wire [2:0]               s_axi_arprot,
    output wire                     s_axi_rvalid,
    input  wire                     s_axi_rready,
    output wire [31:0]              s_axi_rdata,
    output wire [1:0]               s_axi_rresp,
    input  wire                     s_axi_awvalid,
    output wire                     s_axi_awready,
    input  wire [11:0]              s_axi_awaddr,
    input  wire [2:0]               s_axi_awprot,
    input  wire                     s_axi_wvalid,
    output wire                     s_axi_wready,
    input  wire [31:0]              s_axi_wdata,
    input  wire [3:0]               s_axi_wstrb,
    output wire                     s_axi_bvalid,
    input  wire                     s_axi_bready,
    output wire [1:0]               s_axi_bresp,

    output wire                     irq,
    output wire [32*COLUMNS-1:0]    activity
);
    localparam [2:0] SIZE = $clog2(DATA_BITS / 8);
    localparam [1:0] INCR = 2'b01;
    localparam [3:0] BUFFERABLE = 4'b0011; // normal memory, not cached

    assign m_axi_arsize = SIZE;
    assign m_axi_arburst = INCR;
    assign m_axi_arlock = 1'b0;
    assign m_axi_arcache = BUFFERABLE;
    assign m_axi_arprot = 3'b000;
    assign m_axi_arqos = 4'b0000;

    assign m_axi_awsize = SIZE;
    assign m_axi_awburst = INCR;
    assign m_axi_awlock = 1'b0;
    assign m_axi_awcache = BUFFERABLE;
    assign m_axi_awprot = 3'b000;
    assign m_axi_awqos = 4'b0000;

    neuflow_core core (
        .clk(aclk),
        .rst(~aresetn),
        .m_axi__ar__valid(m_axi_arvalid),
        .m_axi__ar__ready(m_axi_arready),
        .m_axi__ar__addr(m_axi_araddr),
        .m_axi__ar__id(m_axi_arid),
        .m_axi__ar__len(m_axi_arlen),
        .m_axi__r__valid(m_axi_rvalid),
        .m_axi__r__ready(m_axi_rready),
        .m_axi__r__data(m_axi_rdata),
        .m_axi__r__id(m_axi_rid),
        .m_axi__r__resp(m_axi_rresp),
        .m_axi__r__last(m_axi_rlast),
        .m_axi__aw__valid(m_axi_awvalid),
        .m_axi__aw__ready(m_axi_awready),
        .m_axi__aw__addr(m_axi_awaddr),
        .m_axi__aw__id(m_axi_awid),
        .m_axi__aw__len(m_axi_awlen),
        .m_axi__w__valid(m_axi_wvalid),
        .m_axi__w__ready(m_axi_wready),
        .m_axi__w__data(m_axi_wdata),
        .m_axi__w__strb(m_axi_wstrb),
        .m_axi__w__last(m_axi_wlast),
        .m_axi__b__valid(m_axi_bvalid),
        .m_axi__b__ready(m_axi_bready),
        .m_axi__b__id(m_axi_bid),
        .m_axi__b__resp(m_axi_bresp),
        .s_axi__ar__valid(s_axi_arvalid),
        .s_axi__ar__ready(s_axi_arready),
        .s_axi__ar__addr(s_axi_araddr),
        .s_axi__r__valid(s_axi_rvalid),
        .s_axi__r__ready(s_axi_rready),
        .s_axi__r__data(s_axi_rdata),
        .s_axi__r__resp(s_axi_rresp),
        .s_axi__aw__valid(s_axi_awvalid),
        .s_axi__aw__ready(s_axi_awready),
        .s_axi__aw__addr(s_axi_awaddr),
        .s_axi__w__valid(s_axi_wvalid),
        .s_axi__w__ready(s_axi_wready),
        .s_axi__w__data(s_axi_wdata),
        .s_axi__w__strb(s_axi_wstrb),
        .s_axi__b__valid(s_axi_bvalid),
        .s_axi__b__ready(s_axi_bready),
        .s_axi__b__resp(s_axi_bresp),
        .irq(irq),
        .activity(activity)
    );
endmodule
