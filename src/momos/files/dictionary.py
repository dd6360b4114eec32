"""The text that every manifest of version 2 is deflated after (a preset dictionary of zlib).

Most manifests repeat most of it, so small files get shorter by a few hundred bytes. It is part of
the format (docs/format.md, §9): a byte more or less here, and no file of version 2 can be read.
"""

NAMES = (
    '"float16","float64","int64","bool","uint8",'
    ".self_attn.in_proj_weight.out_proj.embed_tokens.q_proj.k_proj.v_proj."
    "attention.query.key.value.mlp.fc1.fc2.gate_proj.up_proj.down_proj.norm1.LayerNorm.ln_1"
    ".lstm.weight_ih_l0.weight_hh_l0.bias_ih_l0.bias_hh_l0"
    ".encoder.decoder.head.classifier.features.downsample.layer4.2.conv1.layer3.1.conv2"
    '.layer2.0.bn1.bn2.running_mean.running_var.num_batches_tracked","stored":"dense",'
    '"shape":[],"dtype":"int64","why":"not floating","why":"not chosen","why":"frozen",'
    '"why":"empty","why":"buffer","why":"buffer that state_dict leaves out",'
    '"stored":"same","as":","persistent":false,"scales":64,"axis":1,'
    '"distortion":0.0,"energy":1.0'
)
SETTINGS = (
    '"config":{"block_size":2,"capacity":null,"num_motifs":64,"include":["*"],"exclude":[],'
    '"zero_motif":true,"selection":"kmeans","seed":0,"min_ndim":2,"scales":"tensor",'
    '"rate_weight":0.5,"bits":8,"dense_dtype":"bfloat16","groups":[]}}'
    '"config":{"step":0.1,"rate_weight":0.1,"block_size":1,"unit":"auto","include":["*"],'
    '"exclude":[],"min_ndim":2,"dense_dtype":"bfloat16","states":null}}'
    '"metadata":{"format":"pt"}}'
)
FRAME = (
    '{"producer":"momos 0.1.0","motifs":{"block_size":1,"num_motifs":256,"dtype":"int8",'
    '"packs":[[[0,256]]],"order":"whole","scales":[[[32,11],[32,11],[32,11],[32,11]]],'
    '"states":64,"usage":{"significant":4,"streams":[[1,168]]}},"tensors":['
    '{"name":"bn1.running_mean","stored":"dense","shape":[16],"dtype":"float32",'
    '"why":"running statistics, rounded to bfloat16"},'
    '{"name":"fc.bias","stored":"dense","shape":[64],"dtype":"float32",'
    '"why":"fewer than 2 dimensions, rounded to bfloat16"},'
    '{"name":"conv1.weight","stored":"blocks","shape":[64,64,3,3],"dtype":"float32",'
    '"streams":[[11,100]],"distortion":0.01,"energy":1.0}],'
    '"dense":[{"dtype":"float32","packs":[[[5,0],[5,0],[0,100],[32,100]]]}],"sha256":"'
)
DICTIONARY = (NAMES + SETTINGS + FRAME).encode()
